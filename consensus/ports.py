"""All that other packages need of the replicated log: the `Log` protocol, its status and its errors."""

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec

from consensus.messages import Accepted, Command, Entry, Event, Rejected
from consensus.state import ClusterState, CommandId, NodeId


class LogError(Exception):
    """Root of the errors of this package."""


class NoQuorum(LogError):
    """The command was not committed before its deadline. It may still be committed later: repeat it under the
    same command id."""


class CommandRejected(LogError):
    """The command is in the log and changed nothing."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(rejected.reason)
        self.code = rejected.code
        self.reason = rejected.reason


class CommandTooLarge(LogError):
    """The encoded command exceeds 1 MiB."""


class MembershipRefused(LogError):
    """Not the leader, another change is under way, or the change makes no sense."""


class Committed(msgspec.Struct, frozen=True):
    """A committed and, on this node, applied command."""

    index: int
    outcome: Accepted


class LogStatus(msgspec.Struct, frozen=True):
    """What this node knows of the log. Ages are in seconds; `lag` (entries behind) only on the leader."""

    me: NodeId
    leader: NodeId | None
    term: int
    commit_index: int
    applied_index: int
    quorum: bool
    """Leader: heard from a majority within the last second. Follower: heard from a leader within it."""
    seconds_without_quorum: float
    voters: tuple[NodeId, ...]
    connected: tuple[NodeId, ...]
    lag: Mapping[NodeId, int]
    read_only: str
    """Why this node refuses writes (a full disk), empty if it does not."""
    silent: frozenset[NodeId] = frozenset()
    """On the leader: connected peers that have not answered for half a second. A connection outlives its peer."""


class PeerAddress(msgspec.Struct, frozen=True):
    """Where to dial a peer's Raft port: addresses in the order to try."""

    addresses: tuple[str, ...]
    port: int


class Beacon(msgspec.Struct, frozen=True):
    """The last small status message of a peer and its age in seconds; None before the first."""

    payload: bytes
    age: float


class Batch(msgspec.Struct, frozen=True):
    """Committed entries in order, with the events that they caused and the state after the last one."""

    entries: tuple[tuple[int, Entry], ...]
    events: tuple[Event, ...]
    state: ClusterState


class Resync(msgspec.Struct, frozen=True):
    """The subscriber was too slow, or a snapshot replaced the log: start anew from `state`."""

    state: ClusterState


class Links(Protocol):
    """The log's connections to peers, where it has some of its own."""

    def disconnect(self, node: NodeId) -> None:
        """Drop the live connection to `node`; one that is still in the peer table may come back."""
        ...

    def renew_links(self) -> None:
        """Put new connections, with today's certificates, in the place of those that this node has dialled."""
        ...

    def judge_links_again(self) -> None:
        """Drop the live connections whose certificates are not accepted any more."""
        ...


class Log(Protocol):
    """The replicated log as one node sees it. Every node accepts every call."""

    @property
    def state(self) -> ClusterState:
        """The newest applied state: a value, safe to keep."""
        ...

    @property
    def status(self) -> LogStatus: ...

    async def propose(
        self, command: Command, *, actor: str, command_id: CommandId | None = None, timeout: float = 10.0
    ) -> Committed:
        """Commit `command` and wait until it is applied on this node. Retries inside, across leader changes,
        under one command id, until `timeout` seconds.

        Raises:
            CommandRejected: the state machine refused it.
            NoQuorum: not committed in time.
            CommandTooLarge: more than 1 MiB.
        """
        ...

    async def barrier(self, timeout: float = 5.0) -> int:
        """A linearization point: returns an index at which this node has applied all that was committed before
        the call. Raises NoQuorum."""
        ...

    async def wait_applied(self, index: int, timeout: float) -> None:
        """Wait until this node has applied `index`. Raises TimeoutError."""
        ...

    def subscribe(self) -> AsyncIterator[Batch | Resync]:
        """First a `Resync` with the present state, then every batch. Bounded: a slow reader gets a `Resync`."""
        ...

    def recent_events(self, since: int) -> tuple[Event, ...] | None:
        """Events with an index above `since`, from a ring in memory; None when the ring no longer reaches back."""
        ...

    # ---- membership and transport, for the agent only
    async def add_voter(self, node: NodeId, timeout: float = 5.0) -> None:
        """Leader only. Raises MembershipRefused, NoQuorum."""
        ...

    async def remove_voter(self, node: NodeId, timeout: float = 5.0) -> None: ...

    async def transfer_leadership(self, to: NodeId | None, timeout: float = 5.0) -> None:
        """Leader only: hand over to `to`, or to the voter that is furthest. Raises MembershipRefused, NoQuorum."""
        ...

    def set_peers(self, peers: Mapping[NodeId, PeerAddress]) -> None:
        """The peer table: whom to connect to, whom to accept. Ids not in it are disconnected."""
        ...

    def set_beacon(self, payload: bytes) -> None:
        """At most 64 KiB, sent to every connected peer each second."""
        ...

    def beacons(self) -> Mapping[NodeId, Beacon]: ...

    async def start(self) -> None: ...

    async def stop(self) -> None: ...
