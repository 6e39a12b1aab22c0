"""A whole Raft cluster in virtual time: real cores, journals and snapshots on simulated disks and links.

Everything follows from the seed, so a failing run can be replayed. Faults: crash (the page cache stays), power loss
(what was not synced may be lost or torn), partitions, resets that lose messages, pauses, changes of voters.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pysyncobj import syncobj

from consensus import replication
from consensus.compaction import CompactionRule
from consensus.configuration import VoterChange
from consensus.ports import MembershipRefused
from consensus.wire import FrameCodec, FrameReader, Message
from tests.unit.consensus.simdisk import Crash, SimDisk
from tests.unit.consensus.simserver import Server

_FRAMES = FrameCodec("simulated")


class Clock:
    """Virtual seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def virtual_time() -> Iterator[Clock]:
    """The engine's clock stands still unless the test moves it. Batches are small, so that they get apart."""
    clock, real, batch = Clock(), syncobj.monotonicTime, replication.BATCH_BYTES
    syncobj.monotonicTime, replication.BATCH_BYTES = clock, 60
    try:
        yield clock
    finally:
        syncobj.monotonicTime, replication.BATCH_BYTES = real, batch


class Violation(Exception):
    """A promise of the log was broken."""


class World:
    """Servers, links and faults of one seed."""

    def __init__(
        self, seed: int, clock: Clock, *, names: str = "ABC", rule: CompactionRule | None = None, big: bool = False
    ) -> None:
        self.rng = random.Random(seed)
        self.clock, self.big = clock, big
        self.rule = rule or CompactionRule()
        self.genesis = names[0]
        self.disks: dict[str, SimDisk] = {}
        self.servers: dict[str, Server] = {}
        self.links: set[frozenset[str]] = set()
        self.cut: set[frozenset[str]] = set()
        self.paused: dict[str, float] = {}
        self.queues: dict[tuple[str, str], deque[bytes]] = defaultdict(deque)
        self.readers: dict[tuple[str, str], FrameReader] = {}
        self.leaders: dict[int, str] = {}
        self.chosen: dict[int, bytes] = {}
        self.payload: dict[str, bytes] = {}
        self.acknowledged: set[str] = set()
        for name in names:
            self.start(name)
        self._form(names)

    def _form(self, names: str) -> None:
        self.run_until(lambda: self.servers[self.genesis].core.is_leader)
        for name in names[1:]:
            self.run_until(lambda name=name: self._add(name))  # type: ignore[misc]
        voters = tuple(sorted(names))
        self.run_until(lambda: all(s.core.electorate.applied == voters for s in self.servers.values()))

    def _add(self, name: str) -> bool:
        leader = self.leader()
        if leader is None:
            return False
        if name not in leader.core.electorate.voters:
            try:
                leader.core.electorate.propose(VoterChange(add=True, node=name))
            except MembershipRefused:
                return False
        return name in leader.core.electorate.applied

    # ------------------------------------------------------------ links
    def is_linked(self, a: str, b: str) -> bool:
        return frozenset((a, b)) in self.links

    def deliver_later(self, sender: str, to: str, message: Message) -> None:
        if self.is_linked(sender, to):
            self.queues[sender, to].append(_FRAMES.encode(message))

    def reset(self, a: str, b: str) -> None:
        """The connection breaks; what was on its way is lost."""
        if not self.is_linked(a, b):
            return
        self.links.discard(frozenset((a, b)))
        for here, there in ((a, b), (b, a)):
            self.queues[here, there].clear()
            if here in self.servers:
                self.servers[here].core.disconnected_from(there)

    def connect_all(self) -> None:
        names = sorted(self.servers)
        for a in names:
            for b in names:
                pair = frozenset((a, b))
                if a < b and pair not in self.links and pair not in self.cut:
                    self.links.add(pair)
                    for here, there in ((a, b), (b, a)):
                        self.readers[here, there] = FrameReader(_FRAMES)
                        self.servers[here].core.connected_to(there)
                elif pair in self.links and pair in self.cut:
                    self.reset(a, b)

    def deliver(self, sender: str, to: str) -> None:
        frame = self.queues[sender, to].popleft()
        for message in self.readers[sender, to].feed(frame):
            if self.is_linked(sender, to):
                self.servers[to].core.receive(sender, message)

    # ------------------------------------------------------------ servers
    def start(self, name: str) -> Server:
        disk = self.disks.setdefault(name, SimDisk(self.rng))
        disk.crash_after = None
        self.servers[name] = server = Server(self, name, disk)
        return server

    def crash(self, name: str, *, power_loss: bool = False) -> None:
        for other in list(self.servers):
            if other != name:
                self.reset(name, other)
        del self.servers[name]
        if power_loss:
            self.disks[name].power_loss()

    def leader(self) -> Server | None:
        leading = [s for s in self.servers.values() if s.core.is_leader]
        return max(leading, key=lambda s: s.core.term, default=None)

    def put(self, name: str) -> str:
        key = f"w{len(self.payload) + 1}"
        size = self.rng.choice((10, 30_000)) if self.big else 10
        self.payload[key] = key.encode() + b" " + b"x" * size
        self.servers[name].waiting[key] = self.clock.now
        return key

    # ------------------------------------------------------------ promises
    def on_apply(self, name: str, index: int, command: bytes) -> None:
        chosen = self.chosen.setdefault(index, command)
        if chosen != command:
            raise Violation(f"entry {index} is {command[:12]!r} on {name}, {chosen[:12]!r} elsewhere")

    def check_leaders(self) -> None:
        for name, server in self.servers.items():
            if server.core.is_leader:
                first = self.leaders.setdefault(server.core.term, name)
                if first != name:
                    raise Violation(f"{first} and {name} both lead term {server.core.term}")

    # ------------------------------------------------------------ time
    def quiet_step(self, seconds: float = 0.02) -> None:
        """Time passes, nothing fails, every message arrives."""
        self.clock.now += seconds
        self.connect_all()
        for server in list(self.servers.values()):
            server.turn()
        for sender, to in sorted(link for link, queue in self.queues.items() if queue):
            while self.queues[sender, to] and to in self.servers:
                self.deliver(sender, to)
        self.check_leaders()

    def run_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = self.clock.now + seconds
        while not condition():
            if self.clock.now > deadline:
                raise Violation(f"not reached within {seconds} s")
            self.quiet_step()

    def random_step(self, *, members: bool = False) -> None:
        rng = self.rng
        self.clock.now += rng.choice((0.002, 0.01, 0.03))
        self.connect_all()
        for name in sorted(self.servers):
            if self.paused.get(name, 0) <= self.clock.now and rng.random() < 0.6:
                self._or_die(name, self.servers[name].turn)
                self.check_leaders()
        busy = sorted(link for link, queue in self.queues.items() if queue)
        rng.shuffle(busy)
        for sender, to in busy:
            if to in self.servers and self.paused.get(to, 0) <= self.clock.now:
                self._or_die(to, lambda sender=sender, to=to: self._deliver_some(sender, to))  # type: ignore[misc]
        self.check_leaders()
        self._fault(rng.random(), members=members)

    def _deliver_some(self, sender: str, to: str) -> None:
        for _ in range(min(len(self.queues[sender, to]), self.rng.choice((0, 0, 1, 2, 5)))):
            self.deliver(sender, to)

    def _or_die(self, name: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Crash:
            self.disks[name].crash_after = None
            self.crash(name, power_loss=self.rng.random() < 0.7)

    def _fault(self, dice: float, *, members: bool) -> None:
        rng, alive = self.rng, sorted(self.servers)
        everyone = sorted(self.disks)
        pairs = [frozenset((a, b)) for a in everyone for b in everyone if a < b]
        if not alive:
            self.start(rng.choice(everyone))
        elif dice < 0.30:
            self.put(rng.choice(alive))
        elif dice < 0.306 and len(alive) > 1:
            self.reset(*rng.sample(alive, 2))
        elif dice < 0.310:
            self.cut = {pair for pair in pairs if rng.random() < 0.4}
        elif dice < 0.318:
            self.cut = set()
        elif dice < 0.321:
            self.paused[rng.choice(alive)] = self.clock.now + rng.random() * 3
        elif dice < 0.323:
            # Dies within its next operations on the disk: in the middle of a turn.
            self.disks[rng.choice(alive)].crash_after = rng.randint(0, 3)
        elif dice < 0.326 and len(alive) > 1:
            self.crash(rng.choice(alive), power_loss=rng.random() < 0.7)
        elif dice < 0.337:
            for name in everyone:
                if name not in self.servers and rng.random() < 0.5:
                    self.start(name)
        elif dice < 0.340:
            self._hand_over(rng.choice(alive))
        elif members and dice < 0.346:
            self._change_voters()

    def _hand_over(self, to: str) -> None:
        leader = self.leader()
        if leader is not None and to != leader.me and to in leader.core.electorate.voters:
            try:
                leader.core.handover.begin(to, 1.0)
            except MembershipRefused:
                return

    def _change_voters(self) -> None:
        leading = [s for s in self.servers.values() if s.core.is_leader]
        if not leading:
            return
        leader = self.rng.choice(leading)
        name = self.rng.choice("ABCDE")
        if name not in self.disks:
            self.start(name)
            return
        voters = leader.core.electorate.voters
        if name in voters and len(voters) <= 3:
            return
        try:
            leader.core.electorate.propose(VoterChange(add=name not in voters, node=name))
        except MembershipRefused:
            return

    def heal_and_check(self) -> None:
        """All faults end: every node must come to the same state, with every acknowledged write in it."""
        self.cut, self.paused = set(), {}
        for name in self.disks:
            self.disks[name].crash_after = None
            if name not in self.servers:
                self.start(name)
        self.run_until(self._settled, seconds=120.0)
        for name, server in self.servers.items():
            lost = self.acknowledged - server.machine.keys.keys()
            if lost:
                raise Violation(f"{name} lost {len(lost)} of {len(self.acknowledged)} acknowledged writes: {min(lost)}")

    def _settled(self) -> bool:
        leader = self.leader()
        if leader is None or any(server.waiting for server in self.servers.values()):
            return False
        at = leader.core.last_index
        return all(s.core.applied_index == at and s.core.leader is not None for s in self.servers.values())
