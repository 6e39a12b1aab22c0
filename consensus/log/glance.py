"""What the log looked like at the end of a turn, and the `LogStatus` that follows from it at a later moment."""

import math

import msgspec

from consensus.core.hardened import HardenedRaft
from consensus.ports import LogStatus
from consensus.state import ClusterState, NodeId

SILENT_SECONDS = 0.5
"""Five heartbeats without an answer."""
QUORUM_SECONDS = 1.0
"""A majority, or a leader, that was not heard from for longer does not count."""


class Glance(msgspec.Struct, frozen=True):
    """Made in the log's thread, read anywhere. `quorum_at` and `last_quorum_at` are those of `HardenedRaft`, on the
    library's clock."""

    me: NodeId
    state: ClusterState
    leads: bool
    leader: NodeId | None
    term: int
    commit_index: int
    applied_index: int
    quorum_at: float
    last_quorum_at: float
    voters: tuple[NodeId, ...]
    """The configuration in force, committed or not."""
    applied_voters: tuple[NodeId, ...]
    connected: tuple[NodeId, ...]
    lag: dict[NodeId, int]
    answered: dict[NodeId, float]
    """When each peer last answered this leader, on the library's clock; minus infinity for never in its term."""
    read_only: str

    def is_news_after(self, before: "Glance") -> bool:
        """Whether anything changed that somebody may wait for."""
        return (self.applied_index, self.term, self.leader, self.leads, self.read_only) != (
            (before.applied_index, before.term, before.leader, before.leads, before.read_only)
        )


def glance_at(core: HardenedRaft, state: ClusterState) -> Glance:
    leads = core.is_leader
    return Glance(
        me=NodeId(core.me),
        state=state,
        leads=leads,
        leader=None if core.leader is None else core.leader.id,
        term=core.term,
        commit_index=core.commit_index,
        applied_index=core.applied_index,
        quorum_at=core.quorum_at,
        last_quorum_at=core.last_quorum_at,
        voters=_ids(core.electorate.voters),
        applied_voters=_ids(core.electorate.applied),
        connected=_ids(tuple(sorted(str(node.id) for node in core.connected))),
        lag={NodeId(node): entries for node, entries in core.lag.items()} if leads else {},
        answered={node.id: core.answered_at.get(node, -math.inf) for node in core.match_index} if leads else {},
        read_only=core.read_only,
    )


def status_of(glance: Glance, now: float, started_at: float) -> LogStatus:
    """The status at `now`. A leader that was not heard from lately is not named."""
    age = now - max(glance.last_quorum_at, started_at)
    quorum = now - glance.quorum_at <= QUORUM_SECONDS
    return LogStatus(
        me=glance.me,
        leader=glance.leader if quorum else None,
        term=glance.term,
        commit_index=glance.commit_index,
        applied_index=glance.applied_index,
        quorum=quorum,
        seconds_without_quorum=0.0 if quorum else max(0.0, age),
        voters=glance.voters,
        connected=glance.connected,
        lag=glance.lag,
        read_only=glance.read_only,
        silent=frozenset(node for node, at in glance.answered.items() if now - at > SILENT_SECONDS),
    )


def _ids(names: tuple[str, ...]) -> tuple[NodeId, ...]:
    return tuple(map(NodeId, names))
