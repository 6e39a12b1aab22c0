"""The rules that keep the log safe, taken out one at a time: the simulator must notice each of them.

A simulator that never fails proves nothing. Every mutation is a mistake that the engine makes as shipped, or that
a careless change of ours could make.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from unittest import mock

import msgspec

from consensus.codec import decode_entry
from consensus.engine import EngineBase, Node
from consensus.journal import Journal
from consensus.matching import Matcher
from consensus.pump import Pump
from consensus.replica import Replica
from consensus.snapshot import Snapshot
from consensus.wire import AppendEntries
from tests.simulation.disk import SimDisk


class Mutation(msgspec.Struct, frozen=True):
    """`owner.name` is replaced by `change`."""

    owner: type
    name: str
    change: Callable[..., object]

    @contextmanager
    def applied(self) -> Iterator[None]:
        with mock.patch.object(self.owner, self.name, self.change):
            yield


_matcher_append, _matcher_adopt = Matcher.append, Matcher._adopt
_replica_apply = Replica.apply


def _believe_the_commit_index(self: Matcher, node: Node, message: AppendEntries) -> None:
    """Commit what the leader has committed, compared or not."""
    _matcher_append(self, node, message)
    core: EngineBase = self._core
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
    recent = self.state.recent
    if entry.id in recent:
        self.state = msgspec.structs.replace(self.state, recent=recent.delete(entry.id))
    _replica_apply(self, index, command)


def _cut_what_has_rotted(self: Journal, raw: bytes, damaged: int, unfinished: int) -> None:
    """Every damage passes for a torn write."""


MUTATIONS = {
    "believe the commit index": Mutation(Matcher, "append", _believe_the_commit_index),
    "truncate without a conflict": Mutation(Matcher, "_append", _truncate_without_conflict),
    "drop the tail at a snapshot": Mutation(Matcher, "_adopt", _drop_the_tail_at_a_snapshot),
    "forget the voters of a snapshot": Mutation(Matcher, "_adopt", _forget_the_voters_of_a_snapshot),
    "never sync": Mutation(SimDisk, "sync", lambda self, name: None),
    "send before the sync": Mutation(Pump, "_round", _send_before_the_sync),
    "confirm on a full disk": Mutation(Pump, "_round", _confirm_on_a_full_disk),
    "forget the vote": Mutation(Journal, "setCurrentTerm", _forget_the_vote),
    "apply every time": Mutation(Replica, "apply", _apply_every_time),
    "cut what has rotted": Mutation(Journal, "_refuse_later_batches", _cut_what_has_rotted),
}
