"""What must hold at every step: the promises of Raft and of the machine, checked against one reference of the world.

The reference is the log as it was first applied anywhere, and the states that follow from it.
"""

import msgspec

from consensus.codec import decode_entry, encode_state
from consensus.core.base import REGULAR
from consensus.core.configuration import is_change, voters_after
from consensus.core.journal import LogEntry
from consensus.messages import Accepted, AddDatasetVersion, Entry, Rejected
from consensus.queries import outcome_of, remembered
from consensus.rules.machine import apply
from consensus.state import ClusterState, CommandId
from tests.unit.consensus.rules.invariants import check_job, check_members_and_blobs


class Violation(Exception):
    """A promise of the log was broken."""


class Reference:
    """The committed log, the state and the voters after each of its entries. Position 0 is before the first."""

    def __init__(self, genesis: str) -> None:
        self.commands: list[bytes] = [b""]
        self.terms: list[int] = [0]
        self.states: list[ClusterState] = [ClusterState()]
        self.voters: list[tuple[str, ...]] = [(genesis,)]
        self._versions: dict[CommandId, int] = {}
        self._latest: dict[str, int] = {}

    @property
    def state(self) -> ClusterState:
        return self.states[-1]

    def applied(self, name: str, index: int, term: int, command: bytes) -> None:
        """`name` applied an entry. Raises Violation."""
        if index < len(self.commands):
            if (self.commands[index], self.terms[index]) != (command, term):
                raise Violation(f"{name} applied another entry {index} than was applied before (term {term})")
            return
        if index > len(self.commands) + (len(self.commands) == 1):
            raise Violation(f"{name} applied entry {index}, but nobody has applied entry {len(self.commands)}")
        while len(self.commands) < index:
            self._add(b"\x01", 0)
        self._add(command, term)

    def _add(self, command: bytes, term: int) -> None:
        index, state, voters = len(self.commands), self.states[-1], self.voters[-1]
        if command[:1] == REGULAR:
            entry = decode_entry(command[1:])
            if entry.level > state.level:
                raise Violation(f"entry {index} needs level {entry.level}, but level {state.level} was in force")
            state = apply(state, index, entry).state
            lowest = min((member.level for member in state.members.values()), default=state.level)
            if state.level > lowest:
                raise Violation(f"entry {index} makes it level {state.level}, a member understands only {lowest}")
            self._count(entry, state)
            self._check_jobs(state)
        elif is_change(command):
            voters = voters_after(voters, command)
        self.commands.append(command)
        self.terms.append(term)
        self.states.append(state)
        self.voters.append(voters)

    def _check_jobs(self, state: ClusterState) -> None:
        """What must hold of every job, wherever one has changed; now and then, all that must hold of a state."""
        before = self.states[-1].jobs
        if state.jobs is before:
            return
        for name, job in state.jobs.items():
            if before.get(name) is not job:
                check_job(state, job)
        if len(self.states) % 8 == 0:
            check_members_and_blobs(state)

    def _count(self, entry: Entry, state: ClusterState) -> None:
        """Exactly once, counted without the machine's own memory of commands."""
        command = entry.command
        if not isinstance(command, AddDatasetVersion):
            return
        if entry.id not in self._versions:
            self._latest[command.name] = self._latest.get(command.name, 0) + 1
            self._versions[entry.id] = self._latest[command.name]
        if state.datasets[command.name].latest != self._latest[command.name]:
            raise Violation(f"command {entry.id} had its effect twice")

    def check_outcome(self, command_id: CommandId, state: ClusterState) -> None:
        """What a client is told is what the command did, the first time."""
        outcome, version = outcome_of(remembered(state, command_id)), self._versions.get(command_id)
        if not isinstance(outcome, Accepted):
            raise Violation(f"command {command_id} was answered {outcome}")
        if version is not None and msgspec.json.decode(outcome.value)["version"] != version:
            raise Violation(f"command {command_id} made version {version}, but was answered {outcome.value!r}")

    def check_trained(self, command_id: CommandId, state: ClusterState) -> None:
        """A trainer may be refused what has been overtaken; all are told the same, and it made sense."""
        told = outcome_of(remembered(state, command_id))
        if told != outcome_of(remembered(self.state, command_id)):
            raise Violation(f"command {command_id} was answered {told}")
        if isinstance(told, Rejected) and told.code == "invalid":
            raise Violation(f"command {command_id} made no sense: {told.reason}")

    def check_state(self, name: str, state: ClusterState, index: int) -> None:
        """A state, or the snapshot of one, equals the replay of the log up to its entry."""
        if index >= len(self.states) or _bytes_of(self.states[index]) != _bytes_of(state):
            raise Violation(f"the state of {name} at entry {index} is not the replay of the log")

    def check_leader(self, name: str, log: list[LogEntry]) -> None:
        """Leader completeness: whoever is elected has every committed entry."""
        first = log[0][1]
        if log[-1][1] < len(self.commands) - 1:
            raise Violation(f"{name} leads with {log[-1][1]} entries, {len(self.commands) - 1} are committed")
        for command, index, term in log[1 : len(self.commands) - first]:
            if index > 1 and (self.commands[index], self.terms[index]) != (command, term):
                raise Violation(f"{name} leads with another entry {index} than the committed one")


class LogMatching:
    """Two logs with an entry of the same index and term are the same up to there: it suffices that the entry and the
    term of the one before it are the same, at the moment in which each log gets it."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], tuple[bytes, int]] = {}

    def added(self, name: str, index: int, term: int, command: bytes, previous_term: int) -> None:
        seen = self._seen.setdefault((index, term), (command, previous_term))
        if seen != (command, previous_term):
            raise Violation(f"{name} has another entry {index} of term {term} than a log before it")


def _bytes_of(state: ClusterState) -> bytes:
    # A state that came with a snapshot knows the snapshot's index, which may be that of a no-op behind its last entry.
    return encode_state(msgspec.structs.replace(state, index=0))
