"""Who votes: changes of the voters as log entries, and the configuration that follows from them.

The configuration is the voters of the newest snapshot plus every change in the log behind it, committed or not
(Ongaro's thesis, section 4.1); changes go one at a time, so that any two majorities overlap.
"""

from collections.abc import Iterable

import msgspec

from consensus.core.base import MEMBERSHIP, Node, RaftBase, now
from consensus.core.journal import LogEntry
from consensus.ports import MembershipRefused


class VoterChange(msgspec.Struct, frozen=True, array_like=True):
    """One node becomes a voter, or no longer is one."""

    add: bool
    node: str


def encode_change(change: VoterChange) -> bytes:
    return MEMBERSHIP + msgspec.msgpack.encode(change)


def is_change(command: bytes) -> bool:
    return command[:1] == MEMBERSHIP


def voters_after(voters: tuple[str, ...], command: bytes) -> tuple[str, ...]:
    """The voters, sorted, once `command` (an encoded change) took effect."""
    change = msgspec.msgpack.decode(command[1:], type=VoterChange)
    after = {*voters, change.node} if change.add else {*voters} - {change.node}
    return tuple(sorted(after))


def configuration(voters: tuple[str, ...], tail: Iterable[LogEntry]) -> tuple[str, ...]:
    """The voters after all changes among the entries of `tail`."""
    for command, _, _ in tail:
        if is_change(command):
            voters = voters_after(voters, command)
    return voters


class Electorate:
    """Keeps the library's sets of peers in step with the configuration, and guards its changes."""

    def __init__(self, core: RaftBase) -> None:
        self._core = core
        self.applied: tuple[str, ...] = ()
        """The voters as of the last applied entry: they belong to a snapshot of it."""
        self.voters: tuple[str, ...] = ()
        """The configuration in force, sorted, committed or not."""

    def apply(self, command: bytes) -> None:
        self.applied = voters_after(self.applied, command)

    def recompute(self) -> None:
        """The log changed in a way that may concern the configuration."""
        core = self._core
        self.voters = configuration(self.applied, self._unapplied())
        core.voter = core.me in self.voters
        core.others = {Node(voter) for voter in self.voters if voter != core.me}
        self.classify()

    def classify(self) -> None:
        """Every connected peer that does not vote is a learner; what is known of the progress of others is kept."""
        core = self._core
        core.learners = core.connected - core.others
        peers = core.others | core.learners
        for node in peers - core.match_index.keys():
            core.next_index[node] = core.last_index + 1
            core.match_index[node] = 0
        for node in peers - core.heard_at.keys():
            core.heard_at[node] = now()
        for progress in (core.next_index, core.match_index, core.heard_at):
            for node in progress.keys() - peers:
                del progress[node]

    def propose(self, change: VoterChange) -> None:
        """Put one change into the log of this leader; it is in force at once. Raises MembershipRefused."""
        core = self._core
        problem = self._problem(change)
        if problem:
            raise MembershipRefused(problem)
        core.log.add(encode_change(change), core.last_index + 1, core.term)
        self.recompute()

    def _problem(self, change: VoterChange) -> str:
        core = self._core
        if not core.is_leader:
            return f"{core.me} is not the leader"
        if any(is_change(command) for command, _, _ in self._unapplied()):
            return "another change of voters is under way"
        if core.no_op_index is None or core.applied_index < core.no_op_index:
            # Else two leaders' changes may overlap (raft-dev, "bug in single-server membership changes", 2015).
            return "the leader has not committed an entry of its term yet"
        if change.node == core.me:
            return "the leader does not change its own vote: hand over leadership first"
        if change.add == (change.node in self.voters):
            return f"{change.node} is {'already' if change.add else 'not'} a voter"
        return ""

    def _unapplied(self) -> list[LogEntry]:
        core = self._core
        return core.log[max(0, core.applied_index + 1 - core.log[0][1]) :]
