"""One Raft core alone: the test plays its peers, message by message, in virtual time."""

import random

from consensus.core.base import NO_OP, Timers
from consensus.core.compaction import CompactionRule
from consensus.core.configuration import VoterChange, encode_change
from consensus.core.hardened import HardenedRaft
from consensus.core.journal import Journal
from consensus.core.snapshot import Background, SnapshotStore
from consensus.log.pump import Pump
from consensus.wire.frames import AppendEntries, Message, PreVote, PreVoteGranted, RequestVote, VoteGranted
from tests.simulation.clock import Clock
from tests.simulation.disk import SimDisk
from tests.unit.consensus.registry import Finished, Registry

PUT = b"\x00"


class Lone:
    """Core `me`. `sent` is what left after a sync, `outbox` what waits for one."""

    def __init__(
        self,
        clock: Clock,
        me: str = "A",
        genesis: str = "B",
        disk: SimDisk | None = None,
        rule: CompactionRule | None = None,
        background: Background = Finished,
    ) -> None:
        self.clock = clock
        self.disk = disk or SimDisk()
        self.outbox: list[tuple[str, Message]] = []
        self.sent: list[tuple[str, Message]] = []
        self.machine = Registry()
        self.journal = Journal(self.disk)
        self.core = HardenedRaft(
            me,
            genesis,
            journal=self.journal,
            store=SnapshotStore(self.disk),
            machine=self.machine,
            network=self,
            background=background,
            timers=Timers(),
            rule=rule or CompactionRule(),
            rng=random.Random(1),
        )
        self.pump = Pump(self.core, self.journal, self)

    # ---- the network of the core
    def send(self, peer: str, message: Message) -> bool:
        self.outbox.append((peer, message))
        return True

    def backlog(self, peer: str) -> int:
        return 0

    def flush(self) -> None:
        self.sent += self.outbox
        self.outbox = []

    def drop(self) -> None:
        self.outbox = []

    # ---- the test's side
    def hears(self, peer: str, message: Message) -> list[Message]:
        """Deliver one message, take a turn; what was answered to that peer."""
        self.core.receive(peer, message)
        return [answer for to, answer in self.turn() if to == peer]

    def turn(self, seconds: float = 0.0) -> list[tuple[str, Message]]:
        self.clock.now += seconds
        before = len(self.sent)
        self.pump.turn()
        return self.sent[before:]

    def log(self) -> list[tuple[int, bytes]]:
        """(term, command) of every entry but the first."""
        return [(term, command) for command, _, term in self.journal[1:]]


def joined(clock: Clock, rule: CompactionRule | None = None, background: Background = Finished) -> Lone:
    """A follower A of leader B in term 1, voters A, B, C: entries 2 (no-op), 3 and 4 (A and C become voters)."""
    lone = Lone(clock, rule=rule, background=background)
    for peer in "BC":
        lone.core.connected_to(peer)
    entries = ((1, NO_OP), (1, change("A")), (1, change("C")))
    lone.hears("B", AppendEntries(1, 4, 1, 0, entries))
    return lone


def elected(clock: Clock, rule: CompactionRule | None = None) -> Lone:
    """A leads term 2 of A, B, C. Its no-op is entry 5."""
    lone = joined(clock, rule)
    asked: list[tuple[str, Message]] = []
    while not any(isinstance(message, PreVote) for _, message in asked):
        asked = lone.turn(0.1)
    question = next(message for _, message in asked if isinstance(message, PreVote))
    lone.hears("B", PreVoteGranted(question.round))
    request = next(message for _, message in lone.sent if isinstance(message, RequestVote))
    lone.hears("B", VoteGranted(request.term))
    assert lone.core.is_leader
    return lone


def change(node: str, *, add: bool = True) -> bytes:
    return encode_change(VoterChange(add=add, node=node))
