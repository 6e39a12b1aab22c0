"""One simulated node: the real core, journal and pump, between a simulated disk and the world's links."""

from typing import TYPE_CHECKING

from consensus.engine import Timers
from consensus.hardened import HardenedRaft
from consensus.journal import Journal
from consensus.pump import Pump
from consensus.snapshot import SnapshotStore
from consensus.wire import Message
from tests.unit.consensus.registry import Finished, Registry
from tests.unit.consensus.simdisk import SimDisk

if TYPE_CHECKING:
    from tests.unit.consensus.simulation import World


class Server:
    """One running node."""

    def __init__(self, world: "World", me: str, disk: SimDisk) -> None:
        self.me, self.world = me, world
        self.outbox: list[tuple[str, Message]] = []
        self.waiting: dict[str, float] = {}
        self.machine = Registry(lambda index, command: world.on_apply(me, index, command))
        self.journal = Journal(disk)
        self.core = HardenedRaft(
            me,
            world.genesis,
            journal=self.journal,
            store=SnapshotStore(disk),
            machine=self.machine,
            network=self,
            background=Finished,
            timers=Timers(),
            rule=world.rule,
            rng=world.rng,
        )
        self.pump = Pump(self.core, self.journal, self)

    def send(self, peer: str, message: Message) -> bool:
        if not self.world.is_linked(self.me, peer):
            return False
        self.outbox.append((peer, message))
        return True

    def backlog(self, peer: str) -> int:
        return 0

    def flush(self) -> None:
        for peer, message in self.outbox:
            self.world.deliver_later(self.me, peer, message)
        self.outbox.clear()

    def drop(self) -> None:
        self.outbox.clear()

    def turn(self) -> None:
        """What the log's thread does: repeat what is unanswered, pump, acknowledge."""
        now = self.world.clock.now
        for key, due in self.waiting.items():
            if due <= now:
                self.waiting[key] = now + 0.5
                self.core.submit(self.world.payload[key])
        self.pump.turn()
        for key in [key for key in self.waiting if key in self.machine.keys]:
            del self.waiting[key]
            self.world.acknowledged.add(key)
