"""The secrets that a node goes by while the cluster's is rotated, durable in its slot until the file is enough.

The file (`secret` of the data folder, or the one that the operator gave) holds what a node starts with. It loses to the
slot only while it holds a secret that this node knows to be replaced, or one of the two of a rotation under way.
"""

from pathlib import Path

import msgspec
from msgspec.structs import replace

from node import logs
from node.files import fsync_folder, write_atomically
from node.identity.secret import SECRET_BYTES, SecretError, digest_of, load_secret

FILE_NAME = "secrets.json"
MAX_REPLACED = 64
"""Digests of old secrets that are remembered: a file that nobody has replaced for so many rotations is refused."""

log = logs.get("node.identity.ring")


class Ring(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`current` and `coming` are secrets of 32 bytes. Both are trusted; one is presented."""

    current: bytes
    coming: bytes | None = None
    presents_coming: bool = False
    replaced: tuple[str, ...] = ()
    """Digests of secrets that are worth nothing any more."""

    def __post_init__(self) -> None:
        if any(len(secret) != SECRET_BYTES for secret in self.secrets):
            raise ValueError(f"a secret has {SECRET_BYTES} bytes")
        if self.presents_coming and self.coming is None:
            raise ValueError("there is no coming secret to present")
        if len(self.replaced) > MAX_REPLACED:
            raise ValueError(f"more than {MAX_REPLACED} replaced secrets")

    def __repr__(self) -> str:
        return f"Ring({len(self.secrets)} secrets, presents_coming={self.presents_coming})"

    @property
    def secrets(self) -> tuple[bytes, ...]:
        """All that are trusted, the presented one first."""
        if self.coming is None:
            return (self.current,)
        return (self.coming, self.current) if self.presents_coming else (self.current, self.coming)

    def preparing(self, coming: bytes) -> "Ring":
        return replace(self, coming=coming, presents_coming=False)

    def presenting(self) -> "Ring":
        return replace(self, presents_coming=True)

    def abandoning(self) -> "Ring":
        return replace(self, coming=None, presents_coming=False)

    def retiring(self) -> "Ring":
        """Only the coming one is left; of the old one its digest."""
        if self.coming is None:
            return self
        known = (*self.replaced, digest_of(self.current))[-MAX_REPLACED:]
        return Ring(current=self.coming, replaced=known)


def decode_ring(content: bytes) -> Ring:
    """Raises SecretError, which holds nothing of the content."""
    try:
        return msgspec.json.decode(content, type=Ring)
    except (ValueError, RecursionError):  # msgspec's errors are ValueErrors; theirs may show what they met
        raise SecretError(f"{FILE_NAME} holds {len(content)} bytes of something else than a node's secrets") from None


def chosen(ring: Ring | None, given: bytes) -> Ring:
    """What a node starts with: of what its slot remembers and what the secret's file holds."""
    if ring is None:
        return Ring(given)
    if given == ring.current or digest_of(given) in ring.replaced:
        return ring
    if given == ring.coming:
        return ring.presenting()  # the file is replaced once all trust the new one
    return Ring(given)


def secret_in_use(path: Path, data: Path | None) -> bytes:
    """The secret that members on this machine go by: that of the file, unless a slot knows it to be replaced.

    Raises SecretError.
    """
    given = load_secret(path)
    for found in sorted(data.glob(f"slots/*/{FILE_NAME}")) if data is not None else ():
        ring = decode_ring(found.read_bytes())
        if digest_of(given) in ring.replaced:
            return ring.secrets[0]
    return given


class RingStore:
    """`secrets.json` of one slot, and the secret's file beside it. `owned`: this node may write that file."""

    def __init__(self, slot: Path, secret_path: Path, *, owned: bool) -> None:
        self._path = slot / FILE_NAME
        self._secret_path, self._owned = secret_path, owned

    def load(self) -> Ring:
        """What this node starts with. Raises SecretError."""
        given = load_secret(self._secret_path)
        self._clear()
        kept = decode_ring(self._path.read_bytes()) if self._path.exists() else None
        ring = chosen(kept, given)
        if kept is not None and given not in ring.secrets:
            log.warning("secret.outdated", path=str(self._secret_path), remedy="put the rotated secret into the file")
        elif ring.coming is None and kept is not None:
            self._forget()
        return ring

    def save(self, ring: Ring) -> None:
        """Durable when it returns. Raises OSError."""
        write_atomically(self._path, msgspec.json.encode(ring), mode=0o600)

    def publish(self, ring: Ring) -> bool:
        """Put the presented secret into the secret's file, for all that start with it, if it holds one that is being
        replaced; returns whether it holds the presented one now. Raises OSError, SecretError."""
        if not self._owned:
            return load_secret(self._secret_path) == ring.secrets[0]
        given = load_secret(self._secret_path)
        if given != ring.secrets[0] and (given in ring.secrets or digest_of(given) in ring.replaced):
            self._replace(ring.secrets[0])
            given = ring.secrets[0]
        return given == ring.secrets[0]

    def settle(self, ring: Ring) -> None:
        """Keep no more than is needed from here on: nothing, if the file says the same."""
        if self.publish(ring):
            self._forget()
            return
        self.save(ring)
        log.warning("secret.outdated", path=str(self._secret_path), remedy="put the rotated secret into the file")

    def _replace(self, secret: bytes) -> None:
        """Several nodes may do so at once, with the same bytes: each by a file of its own, named by its slot."""
        path = self._secret_path
        write_atomically(path, secret.hex().encode() + b"\n", mode=0o600, mark=self._mark)
        log.info("secret.file_replaced", path=str(path))

    @property
    def _mark(self) -> str:
        return f"slot-{self._path.parent.name}"

    def _clear(self) -> None:
        """What a crash left of files that were being written: the next rotation may make it an old secret."""
        for left in self._path.parent.glob(f".{FILE_NAME}.*.tmp"):
            left.unlink()
        if self._owned:
            self._secret_path.with_name(f".{self._secret_path.name}.{self._mark}.tmp").unlink(missing_ok=True)

    def _forget(self) -> None:
        self._path.unlink(missing_ok=True)
        fsync_folder(self._path.parent)
