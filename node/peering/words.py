"""What nodes say to one another on the peer port, and how a call to a peer may fail."""

from typing import TypeVar

import msgspec

from discovery.merging import Standing
from discovery.peer import Peer

REVOKED_STATUS = 410
"""What a member answers to a node that was removed for good: "gone", and not coming back."""
MAX_TOLD = 64
"""Others in a greeting. Of them one is enough to get in; the members' own log says where the rest are."""

T = TypeVar("T")


class PeerError(Exception):
    """Root of the errors of calls to peers."""


class PeerUnreachable(PeerError):
    """No address of the node answers, or the connection broke. Nothing is known about the call's effect."""


class ClocksDiffer(PeerUnreachable):
    """A peer's certificate is outside its time by this node's clock, or ours by the peer's."""


class OtherSecret(PeerUnreachable):
    """A node answered that has another cluster secret."""


class PeerRefused(PeerError):
    """The node answered with an error."""

    def __init__(self, node: str, status: int, reason: str) -> None:
        super().__init__(f"node {node} answered {status}: {reason}")
        self.status = status
        self.reason = reason


class Grant(msgspec.Struct, frozen=True):
    """The answer to a node that asks to join."""

    cluster_id: str
    genesis: str
    name: str
    leader: Peer | None = None
    """Who must know the newcomer before its registration can be committed; None if it is who answers, or unknown."""


class Greeting(msgspec.Struct, frozen=True):
    """The answer to a node that says who and where it is."""

    peer: Peer
    grant: Grant | None = None
    """How to join, from a member of the greeter's cluster or to a blank greeter."""
    known: tuple[Peer, ...] = ()
    """Others that a blank greeter may want to know, at most `MAX_TOLD`."""
    standing: Standing | None = None
    """Of the cluster of who answers, to a member of another one."""


class MayStop(msgspec.Struct, frozen=True):
    """The leader's answer to a notice of stopping."""

    may_stop: bool


def decode(body: bytes, form: type[T]) -> T:
    """What a peer sent as JSON. Raises ValueError for everything else, however deeply nested."""
    try:
        return msgspec.json.decode(body, type=form)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error
