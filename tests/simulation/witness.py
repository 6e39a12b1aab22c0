"""What must hold of terms, votes, leaders and commits, whoever looks: kept for the whole world, over all restarts."""

from collections.abc import Callable

from consensus.wire.frames import AppendEntries, AppendReply, Message, RequestVote, VoteGranted
from tests.simulation.checks import Reference, Violation
from tests.simulation.server import CheckedJournal, Server

CHECK_QUORUM_SECONDS = 1.0
"""A leader that has not heard from a majority for so long is none after its next turn."""
QUORUM_SLACK = 0.01


class Witness:
    """Is told of every message that arrives, and of every turn. Each method raises Violation."""

    def __init__(self, now: Callable[[], float], note: Callable[[str, str], None]) -> None:
        self._now, self._note = now, note
        self._leaders: dict[int, str] = {}
        self._votes: dict[tuple[int, str], str] = {}
        self._journals: dict[str, CheckedJournal] = {}
        self._roles: dict[str, tuple[bool, int]] = {}
        self._promised: dict[str, int] = {}

    def arrived(self, sender: str, to: str, message: Message) -> None:
        """What has left a node is durable there: its term, and its one vote of a term."""
        if isinstance(message, AppendEntries | AppendReply | RequestVote | VoteGranted):
            self._promised[sender] = max(self._promised.get(sender, 0), message.term)
        if isinstance(message, VoteGranted):
            first = self._votes.setdefault((message.term, sender), to)
            if first != to:
                raise Violation(f"{sender} voted for {first} and {to} in term {message.term}")

    def started(self, server: Server) -> None:
        term, acted = server.core.term, self._promised.get(server.me, 0)
        if term < acted:
            raise Violation(f"{server.me} starts in term {term}, has acted in {acted}")
        self._journals[server.me] = server.journal
        self._roles.pop(server.me, None)
        self._note(server.me, f"starts: term {term}, log {server.journal[0][1]}..{server.core.last_index}")

    def committed(self, server: Server, reference: Reference, index: int, term: int) -> None:
        """A leader applies an entry only once a majority has it. One that is down had it when it went."""
        if index < len(reference.commands):
            return
        voters = server.core.electorate.voters
        holders = [voter for voter in voters if voter in self._journals and self._journals[voter].holds(index, term)]
        if 2 * len(holders) <= len(voters):
            raise Violation(f"{server.me} applies entry {index}, which only {holders} of {voters} have")

    def turned(self, server: Server, reference: Reference, genesis: str) -> None:
        core = server.core
        # Every log begins with entry 1, before anybody has applied one.
        voters = reference.voters[core.applied_index] if core.applied_index > 1 else (genesis,)
        if core.electorate.applied != voters:
            raise Violation(f"{server.me} has the voters {core.electorate.applied} at entry {core.applied_index}")
        role = (core.is_leader, core.term)
        if role != self._roles.get(server.me):
            self._roles[server.me] = role
            self._note(server.me, f"{'leads' if core.is_leader else 'is in'} term {core.term}, log {core.last_index}")
            if core.is_leader:
                self._leads(server, reference)
        quorum_age = self._now() - core.quorum_at
        if core.is_leader and quorum_age > CHECK_QUORUM_SECONDS + QUORUM_SLACK:
            raise Violation(f"{server.me} leads without a majority for {quorum_age:.2f} s")

    def _leads(self, server: Server, reference: Reference) -> None:
        me, term, voters = server.me, server.core.term, server.core.electorate.voters
        granted = [voter for voter in voters if voter == me or self._votes.get((term, voter)) == me]
        if 2 * len(granted) <= len(voters):
            raise Violation(f"{me} leads term {term} with the votes of {','.join(granted)} alone")
        first = self._leaders.setdefault(term, me)
        if first != me:
            raise Violation(f"{first} and {me} both lead term {term}")
        if term == max(self._leaders):
            # One that was stopped while it was elected may win an old term: it can commit nothing in it.
            reference.check_leader(me, server.journal[:])
