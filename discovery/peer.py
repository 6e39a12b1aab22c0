"""`Peer`, what a node says about itself, `Hint`, a place worth dialling, and their strict form as a TXT record.

Whatever comes from the network is checked here, once, and raises nothing but ValueError.
"""

import re
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import Literal

import msgspec

from parvada.identifiers import is_node_id

MAX_ADDRESSES = 16
"""Addresses of one peer. A node has a few; a record with more is not ours."""
MAX_TXT_BYTES = 1024
"""Of all keys and values together: ours takes less than 250."""
MAX_TXT_KEYS = 32
TXT_FORMAT = "1"

_FINGERPRINT = re.compile(r"[0-9a-f]{16}\Z")
_CLUSTER_ID = re.compile(r"[0-9a-f][0-9a-f-]{0,63}\Z")
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,31}\Z")
_PORT = re.compile(r"[1-9][0-9]{0,4}\Z")


State = Literal["blank", "member"]
_STATES: Mapping[str, State] = {"blank": "blank", "member": "member"}


class Hint(msgspec.Struct, frozen=True, order=True):
    """A place to dial. Trusted for nothing: who answers there is known after the TLS handshake.

    `id` is what the source claims (32 hex digits), empty if it claims nothing.
    """

    address: str
    peer_port: int
    id: str = ""


class Peer(msgspec.Struct, frozen=True):
    """A node as it describes itself. Every field is within its bounds, or the constructor raises ValueError.

    `addresses` are IPv4, in the order to try; `cluster_id` is empty exactly while `state` is "blank";
    `fingerprint` is the first 16 hex digits of the hash of the cluster's CA key.
    """

    id: str
    addresses: tuple[str, ...]
    peer_port: int
    raft_port: int
    api_port: int
    state: State
    cluster_id: str
    fingerprint: str
    version: str

    def __post_init__(self) -> None:
        if not is_node_id(self.id):
            raise ValueError(f"{_shown(self.id)} is not a node id")
        _match(_FINGERPRINT, "fingerprint", self.fingerprint)
        _match(_VERSION, "version", self.version)
        for field in ("peer_port", "raft_port", "api_port"):
            check_port(getattr(self, field))
        if not 1 <= len(self.addresses) <= MAX_ADDRESSES:
            raise ValueError(f"a peer has 1 to {MAX_ADDRESSES} addresses, not {len(self.addresses)}")
        for address in self.addresses:
            check_address(address)
        if self.state not in ("blank", "member"):
            raise ValueError(f"state is {_shown(self.state)}, not 'blank' or 'member'")
        if self.state == "member":
            check_cluster_id(self.cluster_id)
        elif self.cluster_id:
            raise ValueError("a blank node has no cluster id")

    @property
    def hints(self) -> tuple[Hint, ...]:
        """One for each address, in the order to try."""
        return tuple(Hint(address, self.peer_port, self.id) for address in self.addresses)


def check_address(text: str) -> str:
    """An IPv4 address that can be dialled, unchanged. Raises ValueError."""
    try:
        address = IPv4Address(text)
    except AddressValueError as error:
        raise ValueError(f"{_shown(text)} is not an IPv4 address") from error
    if address.is_unspecified or address.is_multicast or int(address) == 0xFFFFFFFF:
        raise ValueError(f"{text} cannot be dialled")
    return text


def check_cluster_id(text: str) -> str:
    """The id of a cluster, unchanged. Raises ValueError."""
    return _match(_CLUSTER_ID, "cluster id", text)


def check_port(port: int) -> int:
    """A port number, 1 to 65535, unchanged. Raises ValueError."""
    if not 1 <= port <= 65535:
        raise ValueError(f"{port} is not a port (1 to 65535)")
    return port


def to_txt(peer: Peer) -> dict[str, str]:
    """The TXT record of `peer`: everything but its addresses, which are A records. No secret is in it."""
    return {
        "v": TXT_FORMAT,
        "id": peer.id,
        "peer": str(peer.peer_port),
        "raft": str(peer.raft_port),
        "api": str(peer.api_port),
        "state": peer.state,
        "cluster": peer.cluster_id,
        "fp": peer.fingerprint,
        "version": peer.version,
    }


def from_txt(txt: Mapping[bytes, bytes | None], addresses: Sequence[str]) -> Peer:
    """The peer that a TXT record describes. Keys that this release does not know are ignored.

    Raises:
        ValueError: anything else that is not as `to_txt` writes it.
    """
    if len(txt) > MAX_TXT_KEYS or sum(len(key) + len(value or b"") for key, value in txt.items()) > MAX_TXT_BYTES:
        raise ValueError("the TXT record is larger than any of ours")
    if _text(txt, b"v") != TXT_FORMAT:
        raise ValueError(f"TXT record of format {_shown(_text(txt, b'v'))}, this release reads {TXT_FORMAT}")
    state = _STATES.get(_text(txt, b"state"))
    if state is None:
        raise ValueError(f"state is {_shown(_text(txt, b'state'))}, not 'blank' or 'member'")
    return Peer(
        id=_text(txt, b"id"),
        addresses=tuple(addresses),
        peer_port=_port(txt, b"peer"),
        raft_port=_port(txt, b"raft"),
        api_port=_port(txt, b"api"),
        state=state,
        cluster_id=_text(txt, b"cluster"),
        fingerprint=_text(txt, b"fp"),
        version=_text(txt, b"version"),
    )


def _text(txt: Mapping[bytes, bytes | None], key: bytes) -> str:
    value = txt.get(key)
    # An empty value and a key without one look alike to some resolvers: both read as "".
    if key not in txt:
        raise ValueError(f"the TXT record lacks {key.decode()!r}")
    try:
        return (value or b"").decode("ascii")
    except UnicodeDecodeError as error:
        raise ValueError(f"{key.decode()!r} of the TXT record is not ASCII") from error


def _port(txt: Mapping[bytes, bytes | None], key: bytes) -> int:
    return check_port(int(_match(_PORT, f"{key.decode()} port", _text(txt, key))))


def _match(pattern: re.Pattern[str], what: str, text: str) -> str:
    if pattern.match(text) is None:
        raise ValueError(f"{_shown(text)} is not a {what}")
    return text


def _shown(text: str) -> str:
    """Safe to log: quoted, escaped and cut."""
    return ascii(text[:40])
