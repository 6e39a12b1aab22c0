"""The cluster secret: its file, and what is derived from it without a certificate (keys, admin token, join token).

Standard library only, so that the command line can make an admin token without importing `cryptography`.
"""

import base64
import binascii
import functools
import hashlib
import hmac
import os
import re
import secrets
from pathlib import Path

import msgspec

from node import logs
from node.files import create_exclusively

log = logs.get("node.identity.secret")

SECRET_BYTES = 32
_HEX = re.compile(rb"[0-9a-fA-F]{64}\Z")
_JOIN_PREFIX = "pvj1_"
_CHECKSUM_BYTES = 4
_MAX_JOIN_TOKEN = 400


class SecretError(ValueError):
    """A secret file or a token that cannot be used; the message says what would be right, and holds no secret."""


class JoinToken(msgspec.Struct, frozen=True):
    """What a node on another host needs to join: which cluster, and its secret (32 bytes)."""

    cluster_id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"JoinToken(cluster_id={self.cluster_id!r})"


def make_secret(path: Path) -> bytes:
    """Make a new secret of 32 random bytes, durable in a file that only its owner reads.

    Raises FileExistsError if there is one: a secret is never overwritten.
    """
    secret = secrets.token_bytes(SECRET_BYTES)
    create_exclusively(path, secret.hex().encode() + b"\n")
    return secret


def load_secret(path: Path) -> bytes:
    """The 32 bytes in the file, which holds 64 hexadecimal digits. Warns if others than its owner may read it.

    Raises:
        SecretError: there is no such file, or it holds something else.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096).strip()
    except FileNotFoundError as error:
        raise SecretError(f"there is no secret at {path}: `parvada init` makes one") from error
    except OSError as error:
        raise SecretError(f"the secret at {path} cannot be read: {error.strerror}") from error
    if not _HEX.match(text):
        raise SecretError(
            f"{path} must hold 64 hexadecimal digits (32 random bytes), it holds {len(text)} characters of something "
            "else: `parvada init` or `openssl rand -hex 32` makes a secret"
        )
    if mode & 0o077:
        log.warning("secret.readable", path=str(path), mode=f"{mode & 0o777:04o}", remedy=f"chmod 600 {path}")
    return bytes.fromhex(text.decode())


@functools.lru_cache(maxsize=4)
def _root_key(secret: bytes) -> bytes:
    """The slow step (32 MiB, about 80 ms, once per process): guessing a secret typed by hand stays dear."""
    if len(secret) != SECRET_BYTES:
        raise SecretError(f"the secret has {len(secret)} bytes, not {SECRET_BYTES}")
    return hashlib.scrypt(secret, salt=b"parvada/v1", n=2**15, r=8, p=1, maxmem=64 * 2**20, dklen=32)


def derive(secret: bytes, label: str, size: int) -> bytes:
    """`size` bytes for the purpose that `label` names: HKDF-SHA256 (RFC 5869) of the stretched secret."""
    if not 1 <= size <= 255 * 32:
        raise ValueError(f"HKDF gives 1 to {255 * 32} bytes, not {size}")
    prk = hmac.digest(bytes(32), _root_key(secret), "sha256")
    block, output = b"", b""
    for counter in range(1, (size + 31) // 32 + 1):
        block = hmac.digest(prk, block + label.encode() + bytes([counter]), "sha256")
        output += block
    return output[:size]


def digest_of(secret: bytes) -> str:
    """64 hexadecimal digits that tell which secret it is, and nothing of it: may be logged and replicated."""
    return derive(secret, "generation", 32).hex()


def parse_secret(text: bytes) -> bytes:
    """The secret from its 64 hexadecimal digits. Raises SecretError, which holds nothing of what was there."""
    if not _HEX.match(text):
        raise SecretError(f"{len(text)} characters that are not the 64 hexadecimal digits of a secret")
    return bytes.fromhex(text.decode())


def admin_token(secret: bytes) -> str:
    """The token that may do everything: whoever reads the secret is the administrator."""
    return "pvd_" + _base32(derive(secret, "admin-token", 20))


def encode_join_token(cluster_id: str, secret: bytes) -> str:
    """Version, cluster id, secret and checksum, in characters that survive a chat and a double click."""
    name = cluster_id.encode()
    if not 1 <= len(name) <= 64 or len(secret) != SECRET_BYTES:
        raise SecretError(f"a join token holds a cluster id of 1 to 64 bytes and a secret of {SECRET_BYTES}")
    body = bytes([len(name)]) + name + secret
    return _JOIN_PREFIX + _base32(body + _checksum(body))


def decode_join_token(text: str) -> JoinToken:
    """The inverse of `encode_join_token`; spaces around it and capitals do not matter.

    Raises:
        SecretError: not a join token, of another version, or damaged.
    """
    text = text.strip().lower()
    if not text.startswith(_JOIN_PREFIX):
        raise SecretError(f"a join token starts with {_JOIN_PREFIX!r}: `parvada token join` prints one")
    damaged = SecretError("the join token is incomplete or mistyped (its checksum is wrong): copy it again, whole")
    if len(text) > _MAX_JOIN_TOKEN:
        raise damaged
    encoded = text.removeprefix(_JOIN_PREFIX).upper()
    try:
        raw = base64.b32decode(encoded + "=" * (-len(encoded) % 8))
    except (binascii.Error, ValueError) as error:
        raise damaged from error
    body, checksum = raw[:-_CHECKSUM_BYTES], raw[-_CHECKSUM_BYTES:]
    if len(raw) < 1 + 1 + SECRET_BYTES + _CHECKSUM_BYTES or _checksum(body) != checksum:
        raise damaged
    if len(body) != 1 + body[0] + SECRET_BYTES:
        raise damaged
    try:
        return JoinToken(body[1 : 1 + body[0]].decode(), body[1 + body[0] :])
    except UnicodeDecodeError as error:
        raise damaged from error


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(b"parvada-join-token" + body).digest()[:_CHECKSUM_BYTES]


def _base32(raw: bytes) -> str:
    return base64.b32encode(raw).decode().rstrip("=").lower()
