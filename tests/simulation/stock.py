"""pysyncobj as shipped under kill -9, power loss, resets and partitions: the evidence that its holes are real.

A program of its own, `python -m tests.simulation.stock --seeds 20`, since our own base locks pickle out for its whole
process. Its last line: `n seeds, v violations, w acknowledged writes`.
"""

import argparse
import logging
import random
import sys
from collections import defaultdict, deque
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated, syncobj
from pysyncobj.journal import MemoryJournal
from pysyncobj.node import Node
from pysyncobj.transport import Transport

NAMES = ("A", "B", "C")


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        # The library's own loops run until some time has passed.
        self.now += 1e-4
        return self.now


class _Broken(Exception):
    """A promise of the log was broken."""


class _DiskJournal(MemoryJournal):  # type: ignore[misc]  # the library is untyped
    """Survives a kill; the commit index on disk is up to a second old, as with the library's own FileJournal."""

    def __init__(self) -> None:
        super().__init__()
        self._on_disk = self._in_memory = 1

    def setRaftCommitIndex(self, index: int) -> None:
        self._in_memory = index

    def getRaftCommitIndex(self) -> int:
        return self._on_disk

    def onOneSecondTimer(self) -> None:
        self._on_disk = self._in_memory


class _Link(Transport):  # type: ignore[misc]  # the library is untyped
    """In-order queues between three servers."""

    def __init__(self, world: "_StockWorld", me: str) -> None:
        super().__init__(None, None, None)
        self._world, self._me = world, me

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        if frozenset((self._me, node.id)) not in self._world.links:
            return False
        self._world.queues[self._me, node.id].append(message)
        return True


class _Store(SyncObj):  # type: ignore[misc]  # the library is untyped
    """A replicated set of keys."""

    def __init__(self, world: "_StockWorld", me: str, journal: MemoryJournal) -> None:
        self.__dict__.update(world=world, me=me, link=_Link(world, me))
        syncobj.createJournal = lambda _: journal
        conf = SyncObjConf(
            autoTick=False, logCompactionMinEntries=10**9, logCompactionMinTime=10**9, leaderFallbackTimeout=2.0
        )
        others = [Node(name) for name in NAMES if name != me]
        super().__init__(Node(me), others, conf, transport=self.link, nodeClass=Node)
        self.keys: set[str] = set()

    @replicated  # type: ignore[untyped-decorator]  # the library is untyped
    def put(self, key: str, padding: bytes) -> None:
        self.world.applied(self.me, self.raftLastApplied + 1, key)
        self.keys.add(key)


class _StockWorld:
    """Three servers of one seed."""

    def __init__(self, seed: int, clock: _Clock) -> None:
        self.rng, self.clock = random.Random(seed), clock
        random.seed(seed)
        self.queues: dict[tuple[str, str], deque[dict[str, Any]]] = defaultdict(deque)
        self.links: set[frozenset[str]] = set()
        self.cut: set[frozenset[str]] = set()
        self.paused: dict[str, float] = {}
        self.acknowledged: set[str] = set()
        self._chosen: dict[int, str] = {}
        self._made = 0
        self.journals = {name: _DiskJournal() for name in NAMES}
        self.servers = {name: _Store(self, name, self.journals[name]) for name in NAMES}

    def applied(self, name: str, index: int, key: str) -> None:
        if self._chosen.setdefault(index, key) != key:
            raise _Broken(f"entry {index} is {key} on {name}, {self._chosen[index]} elsewhere")

    # ------------------------------------------------------------ links
    def connect(self) -> None:
        for a in sorted(self.servers):
            for b in sorted(self.servers):
                pair = frozenset((a, b))
                if a < b and pair not in self.links and pair not in self.cut:
                    self.links.add(pair)
                    for here, there in ((a, b), (b, a)):
                        self.servers[here].link._onNodeConnected(Node(there))
                elif a < b and pair in self.cut:
                    self.reset(a, b)

    def reset(self, a: str, b: str) -> None:
        if frozenset((a, b)) not in self.links:
            return
        self.links.discard(frozenset((a, b)))
        for here, there in ((a, b), (b, a)):
            self.queues[here, there].clear()
            if here in self.servers:
                self.servers[here].link._onNodeDisconnected(Node(there))

    def deliver(self, limit: int) -> None:
        busy = sorted(link for link, queue in self.queues.items() if queue)
        self.rng.shuffle(busy)
        for sender, to in busy:
            for _ in range(min(len(self.queues[sender, to]), limit or self.rng.choice((0, 0, 1, 2, 5)))):
                if to in self.servers and self.paused.get(to, 0.0) <= self.clock.now and self.queues[sender, to]:
                    message = self.queues[sender, to].popleft()
                    self._guard(
                        to, lambda to=to, s=sender, m=message: self.servers[to].link._onMessageReceived(Node(s), m)
                    )

    def _guard(self, name: str, action: Any) -> None:
        try:
            action()
        except _Broken:
            raise
        except Exception:
            # The library's own thread logs what goes wrong in a tick, and goes on.
            logging.getLogger(__name__).debug("stock.error node=%s", name, exc_info=True)

    # ------------------------------------------------------------ time
    def step(self) -> None:
        rng, clock = self.rng, self.clock
        clock.now += rng.choice((0.002, 0.01, 0.03))
        self.connect()
        for name in sorted(self.servers):
            if self.paused.get(name, 0.0) <= clock.now and rng.random() < 0.6:
                self._guard(name, lambda name=name: self.servers[name].doTick(0))
        self.deliver(0)
        self._fault(rng.random(), sorted(self.servers))

    def _fault(self, dice: float, alive: list[str]) -> None:
        rng = self.rng
        if dice < 0.30 and alive:
            self._put(rng.choice(alive))
        elif dice < 0.306 and len(alive) > 1:
            self.reset(*rng.sample(alive, 2))
        elif dice < 0.310:
            self.cut = {frozenset(pair) for pair in ("AB", "AC", "BC") if rng.random() < 0.4}
        elif dice < 0.318:
            self.cut = set()
        elif dice < 0.321:
            self.paused[rng.choice(NAMES)] = self.clock.now + rng.random() * 3
        elif dice < 0.325 and len(alive) > 1:
            name = rng.choice(alive)
            for other in NAMES:
                if other != name:
                    self.reset(name, other)
            del self.servers[name]
        elif dice < 0.337:
            self._start()

    def _start(self) -> None:
        for name in NAMES:
            if name not in self.servers:
                self.servers[name] = _Store(self, name, self.journals[name])

    def _put(self, name: str) -> None:
        self._made += 1
        key = f"w{self._made}"

        def answered(_result: object, error: int) -> None:
            if error == 0:
                self.acknowledged.add(key)

        padding = b"x" * self.rng.choice((10, 30_000))
        self.servers[name].put(key, padding, callback=answered)

    def end(self) -> None:
        """All faults end; every acknowledged key must be with the leader. Raises _Broken."""
        self.cut, self.paused = set(), {}
        self._start()
        for _ in range(1500):
            self.clock.now += 0.02
            self.connect()
            for name in NAMES:
                self._guard(name, lambda name=name: self.servers[name].doTick(0))
            self.deliver(50)
        leading = [server for server in self.servers.values() if server._isLeader()]
        if not leading:
            raise _Broken("no leader")
        lost = self.acknowledged - max(leading, key=lambda server: server.raftCurrentTerm).keys
        if lost:
            raise _Broken(f"LOST {len(lost)} of {len(self.acknowledged)} acknowledged writes, e.g. {min(lost)}")


def main() -> int:
    """Exit code 0 whatever is found: this is the library's record, not ours."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.stock", description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)
    clock = syncobj.monotonicTime = _Clock()
    violations = acknowledged = 0
    for seed in range(options.first, options.first + options.seeds):
        world = _StockWorld(seed, clock)
        try:
            for _ in range(2000):
                world.step()
            world.end()
        except _Broken as problem:
            violations += 1
            sys.stdout.write(f"seed {seed}: {problem}\n")
        acknowledged += len(world.acknowledged)
    sys.stdout.write(f"{options.seeds} seeds, {violations} violations, {acknowledged} acknowledged writes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
