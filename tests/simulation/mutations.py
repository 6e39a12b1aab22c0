"""The rules that keep the log safe, taken out one at a time: the simulator must notice each of them.

A simulator that never fails proves nothing. Every mutation is a mistake that the library makes as shipped, or that
a careless change of ours could make.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import MappingProxyType
from unittest import mock

import msgspec

from consensus.codec import decode_entry
from consensus.core.base import Node, RaftBase
from consensus.core.configuration import Electorate, VoterChange
from consensus.core.hardened import HardenedRaft
from consensus.core.journal import Journal
from consensus.core.matching import Matcher
from consensus.core.snapshot import Snapshot
from consensus.log import replica
from consensus.log.pump import Pump
from consensus.log.replica import Replica
from consensus.messages import RaiseLevel
from consensus.rules import machine
from consensus.rules.checks import Change, Stamp
from consensus.state import ClusterState
from consensus.wire.frames import AppendEntries, AppendReply, RequestVote, VoteGranted
from discovery.formation import Genesis
from node.membership import manager as membership
from tests.simulation import formation
from tests.simulation.clock import NEW_LEVEL
from tests.simulation.disk import SimDisk


class Mutation(msgspec.Struct, frozen=True):
    """`owner.name`, of a class or a module, is replaced by `change`."""

    owner: object
    name: str
    change: object
    kind: str = ""
    """Found in runs of this kind (`Scenario.kind`); empty: in any."""
    also: "Mutation | None" = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        with mock.patch.object(self.owner, self.name, self.change), ExitStack() as more:
            if self.also is not None:
                more.enter_context(self.also.applied())
            yield


_matcher_append, _matcher_adopt = Matcher.append, Matcher._adopt
_replica_apply = Replica.apply
_on_request_vote, _on_vote_granted = HardenedRaft._on_request_vote, HardenedRaft._on_vote_granted
_on_append_reply = HardenedRaft._on_append_reply


def _believe_the_commit_index(self: Matcher, node: Node, message: AppendEntries) -> None:
    """Commit what the leader has committed, compared or not."""
    _matcher_append(self, node, message)
    core: RaftBase = self._core
    core.set_commit(max(core.commit_index, min(message.commit_index, core.last_index)))


def _truncate_without_conflict(self: Matcher, previous: int, entries: tuple[tuple[int, bytes], ...]) -> bool:
    """Hole 1: an older message cuts entries that were acknowledged."""
    if previous < self._core.last_index:
        self._core.log.cut_from(previous + 1)
    for index, (term, command) in enumerate(entries, previous + 1):
        self._core.log.add(command, index, term)
    return True


def _drop_the_tail_at_a_snapshot(self: Matcher, snapshot: Snapshot) -> None:
    """Hole 5."""
    self._core.log.rebase(snapshot.index, snapshot.term)
    _matcher_adopt(self, snapshot)


def _forget_the_voters_of_a_snapshot(self: Matcher, snapshot: Snapshot) -> None:
    voters = self._electorate.applied
    _matcher_adopt(self, msgspec.structs.replace(snapshot, voters=voters))


def _send_before_the_sync(self: Pump) -> None:
    core = self._core
    core.tick()
    core.send_new()
    self._outbox.flush()
    self._sync()


def _confirm_on_a_full_disk(self: Pump) -> None:
    """A write that failed is treated as one that did not."""
    core = self._core
    core.tick()
    core.send_new()
    try:
        self._journal.sync()
    except Exception:
        self._journal._pending.clear()
    self._outbox.flush()


def _forget_the_vote(self: Journal, term: int, vote: str | None) -> None:
    """Term and vote are kept in memory only."""
    self._term, self._vote = term, vote or ""


def _apply_every_time(self: Replica, index: int, command: bytes) -> None:
    """A command that is seen again has its effect again."""
    entry = decode_entry(command)
    if entry.id in self.state.recent:
        self.state = msgspec.structs.replace(self.state, recent=self.state.recent.delete(entry.id))
    _replica_apply(self, index, command)


def _cut_what_has_rotted(self: Journal, raw: bytes, damaged: int, unfinished: int) -> None:
    """Every damage passes for a torn write."""


def _vote_for_a_shorter_log(self: HardenedRaft, node: Node, message: RequestVote) -> None:
    _on_request_vote(self, node, msgspec.structs.replace(message, last_term=2**62))


def _vote_for_everybody(self: HardenedRaft, node: Node, message: RequestVote) -> None:
    """As often as asked in one term."""
    if message.term == self.term:
        self._SyncObj__setCurrentTerm(self.term, None)
    _on_request_vote(self, node, message)


def _count_every_vote(self: HardenedRaft, node: Node, message: VoteGranted) -> None:
    """Hole 15: also those that are repeated."""
    self._granted = (0, set())
    _on_vote_granted(self, node, message)


def _credit_any_answer(self: HardenedRaft, node: Node, message: AppendReply) -> None:
    """Hole 9: one to an older leadership too."""
    _on_append_reply(self, node, msgspec.structs.replace(message, term=self.term))


def _change_at_any_time(self: Electorate, change: VoterChange) -> str:
    """Hole 2."""
    sound = self._core.is_leader and change.node != self._core.me and change.add != (change.node in self.voters)
    return "" if sound else "makes no sense"


def _raise_level(state: ClusterState, command: RaiseLevel, stamp: Stamp) -> Change:
    return Change(msgspec.structs.replace(state, level=max(state.level, command.level)))


def _claim_for_itself(self: formation.World, node: formation.Node) -> Genesis:
    """Every node has a volume of its own, and takes it for the shared one."""
    return Genesis(node.id, "0" * 32)


def _apply_before_the_sync(self: HardenedRaft) -> bool:
    """A sole voter's own word is enough, durable or not."""
    return bool(RaftBase._SyncObj__applyLogEntries(self))


_RECKLESS = MappingProxyType({**machine._RULES, RaiseLevel: _raise_level})

MUTATIONS = {
    "believe the commit index": Mutation(Matcher, "append", _believe_the_commit_index),
    "truncate without a conflict": Mutation(Matcher, "_append", _truncate_without_conflict),
    "drop the tail at a snapshot": Mutation(Matcher, "_adopt", _drop_the_tail_at_a_snapshot),
    "forget the voters of a snapshot": Mutation(Matcher, "_adopt", _forget_the_voters_of_a_snapshot),
    "never sync": Mutation(SimDisk, "sync", lambda self, name: None),
    "send before the sync": Mutation(Pump, "_round", _send_before_the_sync),
    "apply before the sync": Mutation(HardenedRaft, "_SyncObj__applyLogEntries", _apply_before_the_sync),
    "confirm on a full disk": Mutation(Pump, "_round", _confirm_on_a_full_disk),
    "forget the vote": Mutation(Journal, "setCurrentTerm", _forget_the_vote),
    "apply every time": Mutation(Replica, "apply", _apply_every_time),
    "cut what has rotted": Mutation(Journal, "_refuse_later_batches", _cut_what_has_rotted),
    "vote for a shorter log": Mutation(HardenedRaft, "_on_request_vote", _vote_for_a_shorter_log, "hand-overs"),
    "vote for everybody": Mutation(HardenedRaft, "_on_request_vote", _vote_for_everybody, "hand-overs"),
    "count every vote": Mutation(HardenedRaft, "_on_vote_granted", _count_every_vote, "hand-overs"),
    "credit any answer": Mutation(HardenedRaft, "_on_append_reply", _credit_any_answer, "stale answers"),
    "change voters at any time": Mutation(Electorate, "_problem", _change_at_any_time, "overlapping changes"),
    "raise the level without asking": Mutation(
        membership,
        "common_level",
        lambda state: NEW_LEVEL,
        "releases",
        Mutation(machine, "_RULES", _RECKLESS),
    ),
    "go on with an older release": Mutation(replica, "check", lambda own, level: None, "releases"),
    "form with one promise": Mutation(formation, "quorum_of", lambda expect: 1, "expected"),
    "nobody arbitrates": Mutation(formation.World, "_claim", _claim_for_itself, "volume"),
}
