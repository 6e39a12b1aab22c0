"""Who should vote: pure rules from what the leader sees to the next single change of the configuration."""

from collections.abc import Mapping

import msgspec

from consensus.state import MemberStatus, NodeId


class Seen(msgspec.Struct, frozen=True):
    """One member as the leader sees it."""

    status: MemberStatus
    connected: bool
    unseen_for: float
    """Seconds since the last sign of life; 0 while connected."""
    caught_up_for: float
    """Seconds for which it has been less than 100 entries behind; 0 while it is not."""


class View(msgspec.Struct, frozen=True):
    me: NodeId
    voters: frozenset[NodeId]
    members: Mapping[NodeId, Seen]
    stopping: frozenset[NodeId]
    """Members that have said that they are about to stop, the notices of the last second gathered."""


class Limits(msgspec.Struct, frozen=True):
    max_voters: int
    promote_after: float
    away_after: float


class AddVoter(msgspec.Struct, frozen=True):
    node: NodeId


class RemoveVoter(msgspec.Struct, frozen=True):
    node: NodeId


class Transfer(msgspec.Struct, frozen=True):
    """Hand the leadership to a voter that stays."""

    node: NodeId


class Mark(msgspec.Struct, frozen=True):
    node: NodeId
    status: MemberStatus


Change = AddVoter | RemoveVoter | Transfer | Mark


def wanted_voters(healthy: int, max_voters: int) -> int:
    """1 → 1, 2 → 2, 3 and 4 → 3, 5 and more → 5, never above `max_voters`."""
    odd = healthy if healthy <= 2 else healthy - (1 - healthy % 2)
    return min(odd, max_voters)


def next_change(view: View, limits: Limits) -> Change | None:
    """The next thing the leader should do, one at a time; None when all is as it should be."""
    return _mark(view, limits) or _for_stopping(view, limits) or _promote(view, limits) or _shrink(view, limits)


def _mark(view: View, limits: Limits) -> Mark | None:
    for node, seen in sorted(view.members.items()):
        gone = not seen.connected and seen.unseen_for >= limits.away_after and node != view.me
        if gone and seen.status is not MemberStatus.AWAY:
            return Mark(node, MemberStatus.AWAY)
        if seen.connected and seen.status is MemberStatus.AWAY and node not in view.stopping:
            return Mark(node, MemberStatus.ACTIVE)
    return None


def _for_stopping(view: View, limits: Limits) -> Change | None:
    """If some healthy nodes stay, the stopping ones lose their vote at once, so that scaling down leaves a
    working cluster. If all are stopping, nothing changes: any majority may come back."""
    stayers = {node for node in _healthy(view) if node not in view.stopping}
    stopping_voters = view.voters & view.stopping
    if not stayers or not stopping_voters:
        return None
    staying_voters = sorted(view.voters & stayers)
    if not staying_voters:
        caught_up = [node for node in sorted(stayers) if view.members[node].caught_up_for > 0]
        return AddVoter(caught_up[0]) if caught_up else None
    others = sorted(stopping_voters - {view.me})
    if others:
        return RemoveVoter(others[0]) if _works_without(view, others[0]) else None
    return Transfer(staying_voters[0])


def _promote(view: View, limits: Limits) -> AddVoter | None:
    healthy = {node for node in _healthy(view) if node not in view.stopping}
    if len(view.voters & healthy) >= wanted_voters(len(healthy), limits.max_voters):
        return None
    ready = [node for node in healthy - view.voters if view.members[node].caught_up_for >= limits.promote_after]
    return AddVoter(min(ready)) if ready else None


def _shrink(view: View, limits: Limits) -> RemoveVoter | None:
    """A dead voter goes while more than three are there, so its place is taken first where a learner can take it; a
    surplus one goes while all voters live."""
    healthy = {node for node in _healthy(view) if node not in view.stopping}
    wanted = wanted_voters(len(healthy), limits.max_voters)
    dead = sorted(
        node
        for node in view.voters - healthy - {view.me}
        if node not in view.stopping
        and (node not in view.members or view.members[node].unseen_for >= limits.away_after)
    )
    if dead and len(view.voters) > 3 and _works_without(view, dead[0]):
        return RemoveVoter(dead[0])
    surplus = sorted(view.voters - {view.me})
    if not dead and view.voters <= healthy and len(view.voters) > wanted and surplus:
        return RemoveVoter(surplus[-1])
    return None


def _works_without(view: View, node: NodeId) -> bool:
    """Whether the voters left would have a majority alive: else the change itself could never be committed."""
    left = view.voters - {node}
    alive = [voter for voter in left if voter == view.me or (voter in view.members and view.members[voter].connected)]
    return len(alive) * 2 > len(left)


def _healthy(view: View) -> list[NodeId]:
    return [
        node
        for node, seen in view.members.items()
        if node == view.me or (seen.connected and seen.status is not MemberStatus.AWAY)
    ]
