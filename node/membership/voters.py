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
    answers: bool = True
    """Whether it has answered lately; a connection stays for seconds after its peer has died."""


class View(msgspec.Struct, frozen=True):
    me: NodeId
    voters: frozenset[NodeId]
    members: Mapping[NodeId, Seen]
    stopping: frozenset[NodeId]
    """Members that have said that they are about to stop, the notices of the last second gathered."""
    leaving: frozenset[NodeId] = frozenset()
    """Members that are about to be removed: their vote has to go."""
    settled: bool = True
    """Whether this leader has led for long enough to have heard who is about to stop."""

    @property
    def going(self) -> frozenset[NodeId]:
        return self.stopping | self.leaving


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
    return (
        _mark(view, limits)
        or _for_stopping(view)
        or _for_draining(view)
        or _promote(view, limits)
        or _shrink(view, limits)
    )


def _mark(view: View, limits: Limits) -> Mark | None:
    """One that has been gone for long is away. That it is back, it says itself (`node.joining.registration`): one that
    stops is connected for a while after it was let go, and a new leader would take it for one that came. That a member
    drains is the operator's word: it outlasts the node's absence, and its share has moved anyway."""
    for node, seen in sorted(view.members.items()):
        gone = not seen.connected and seen.unseen_for >= limits.away_after and node != view.me
        if gone and seen.status is MemberStatus.ACTIVE:
            return Mark(node, MemberStatus.AWAY)
    return None


def _for_stopping(view: View) -> Change | None:
    """If some healthy nodes stay, the going ones lose their vote at once where that helps, so that scaling down leaves
    a working cluster. If all are stopping, nothing changes: any majority may come back. One that may be dead does not
    count as staying: the votes would all be left to it."""
    stayers = {node for node in _healthy(view) if node not in view.going and _lives(view, node)}
    if not stayers or not view.voters & view.going:
        return None
    if not view.voters & stayers:
        caught_up = [node for node in sorted(stayers) if view.members[node].caught_up_for > 0]
        return AddVoter(caught_up[0]) if caught_up else None
    others = sorted(votes_to_take(view) - {view.me})
    if others:
        return next((RemoveVoter(node) for node in others if _works_without(view, node)), None)
    return Transfer(_heir(view, view.voters & stayers)) if view.me in view.going else None


def votes_to_take(view: View) -> frozenset[NodeId]:
    """The votes that are to go because their nodes do: of the removed all; of those that stop, and of those that are
    away while others stop, as many as leave an odd number. An even number of voters needs as many to agree as the odd
    one above it, so that the vote kept costs nothing; and should another die for good, the node comes back with it.
    Found by the simulator: of three, one stopped while another's disk died, and two that lived had no majority."""
    leaving = view.voters & view.leaving
    stopping = (view.voters & view.stopping) - leaving
    if not stopping:
        return leaving
    idle = stopping | (frozenset(node for node in view.voters if _is_away(view, node)) - leaving)
    staying = len(view.voters - leaving - idle)
    if staying % 2 or not staying:
        return leaving | idle
    return leaving | (idle - {max(stopping, key=lambda node: (_lives(view, node), node))})


def may_stop(view: View, node: NodeId) -> bool:
    """Whether all has been done for a member that stops: its vote has gone, or is to stay and is not missed."""
    if node == view.me or node in votes_to_take(view):
        return False
    ready = [each for each in view.voters - {node} if _lives(view, each) and _keeps_up(view, each)]
    return node not in view.voters or len(ready) * 2 > len(view.voters)


def _keeps_up(view: View, node: NodeId) -> bool:
    return node == view.me or view.members[node].caught_up_for > 0


def _is_away(view: View, node: NodeId) -> bool:
    seen = view.members.get(node)
    return seen is not None and not seen.connected and seen.status is MemberStatus.AWAY


def _for_draining(view: View) -> Transfer | None:
    """A leader that drains hands over, if there is a voter that does not."""
    me = view.members.get(view.me)
    heirs = (view.voters & _willing(view)) - {view.me}
    drains = me is not None and me.status is MemberStatus.DRAINING
    return Transfer(_heir(view, heirs)) if heirs and drains else None


def _heir(view: View, voters: frozenset[NodeId]) -> NodeId:
    """The one that has kept up for longest: a voter that only seems to be there would hold all writes back. One that
    drains would only hand over again."""
    willing = _willing(view)
    return min(voters, key=lambda node: (node not in willing, -view.members[node].caught_up_for, node))


def _promote(view: View, limits: Limits) -> AddVoter | None:
    """Up to the wanted number of voters that live and do not drain; a draining one keeps its vote until then. One that
    is gone for a moment still counts: a voter more would only make every write wait for more answers."""
    willing, expected = _willing(view), _expected_back(view, limits)
    if len(view.voters & (willing | expected)) >= wanted_voters(len(_staying(view) | expected), limits.max_voters):
        return None
    learners = [node for node in willing - view.voters if _lives(view, node)]
    ready = [node for node in learners if view.members[node].caught_up_for >= limits.promote_after]
    return AddVoter(min(ready)) if ready else None


def _expected_back(view: View, limits: Limits) -> frozenset[NodeId]:
    """Voters that are out of reach, but not for so long that they count as dead."""
    return frozenset(
        node
        for node in (view.voters & view.members.keys()) - _staying(view) - view.going
        if view.members[node].status is MemberStatus.ACTIVE and view.members[node].unseen_for < limits.away_after
    )


def _shrink(view: View, limits: Limits) -> RemoveVoter | None:
    """A dead voter goes while more than three are there, so its place is taken first where a learner can take it; a
    surplus one, first of all one that drains, goes while all voters live. Each change keeps a majority of the voters
    alive, so never more than (voters - 1) / 2 are replaced at a time."""
    healthy = _staying(view)
    wanted = wanted_voters(len(healthy), limits.max_voters)
    dead = sorted(
        node
        for node in view.voters - healthy - {view.me}
        if node not in view.going and (node not in view.members or view.members[node].unseen_for >= limits.away_after)
    )
    if dead and len(view.voters) > 3 and _works_without(view, dead[0]):
        return RemoveVoter(dead[0])
    willing = _willing(view)
    surplus = sorted(view.voters - {view.me} - willing) or sorted(view.voters - {view.me})
    all_live = view.voters <= healthy and all(_lives(view, voter) for voter in view.voters)
    if view.settled and not dead and all_live and len(view.voters) > wanted and surplus:
        return RemoveVoter(surplus[-1])
    return None


def _works_without(view: View, node: NodeId) -> bool:
    """Whether the voters left would have a majority alive: else the change itself could never be committed."""
    left = view.voters - {node}
    return sum(_lives(view, voter) for voter in left) * 2 > len(left)


def _lives(view: View, node: NodeId) -> bool:
    seen = view.members.get(node)
    return node == view.me or (seen is not None and seen.connected and seen.answers)


def _staying(view: View) -> frozenset[NodeId]:
    return frozenset(_healthy(view)) - view.going


def _willing(view: View) -> frozenset[NodeId]:
    """Healthy, here to stay, and not draining."""
    return frozenset(node for node in _staying(view) if view.members[node].status is not MemberStatus.DRAINING)


def _healthy(view: View) -> list[NodeId]:
    return [
        node
        for node, seen in view.members.items()
        if node == view.me or (seen.connected and seen.status is not MemberStatus.AWAY)
    ]
