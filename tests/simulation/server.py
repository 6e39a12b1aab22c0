"""One simulated node: the real core, journal, pump, proposals and machine, between a simulated disk and network."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from consensus.codec import CodecError, encode_entry
from consensus.core.base import Timers
from consensus.core.hardened import HardenedRaft
from consensus.core.journal import Journal
from consensus.core.snapshot import SnapshotStore
from consensus.levels import admit, needed
from consensus.log.proposals import Proposals
from consensus.log.pump import Pump
from consensus.log.replica import Replica
from consensus.messages import Entry
from consensus.queries import remembers
from consensus.state import ClusterState, CommandId
from consensus.wire.frames import Message
from tests.simulation.checks import Violation
from tests.simulation.disk import SimDisk
from tests.simulation.mind import Mind

if TYPE_CHECKING:
    from tests.simulation.world import World


class CheckedJournal(Journal):
    """The real journal; every entry that it makes durable is compared with those that other logs got. Before that
    nobody has seen it: a sole voter may lose it with its power, and make another one in the same term."""

    def __init__(self, world: "World", me: str, disk: SimDisk) -> None:
        super().__init__(disk)
        self._me, self._world = me, world
        self._first_new = 0
        self._check_new()

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry is durable here, or behind a snapshot."""
        position = index - self[0][1]
        return position <= 0 or (index <= self.durable_index and self[position][2] == term)

    def _check_new(self) -> None:
        for position in range(max(1, self._first_new - self[0][1]) if len(self) else 0, len(self)):
            command, index, term = self[position]
            self._world.matching.added(self._me, index, term, command, self[position - 1][2])
            self._first_new = index + 1

    def cut_from(self, index: int) -> None:
        super().cut_from(index)
        self._first_new = min(self._first_new, index)

    def rebase(self, index: int, term: int) -> None:
        super().rebase(index, term)
        self._first_new = min(self._first_new, index + 1)

    def sync(self) -> None:
        super().sync()
        self._check_new()


class CheckedReplica(Replica):
    """The real replica; its snapshots, and those that it is given, are compared with the replay of the log. One of the
    older release does not know the newer one's command."""

    def __init__(self, world: "World", me: str, level: int) -> None:
        super().__init__(ClusterState(), level)
        self._me, self._world = me, world

    def known(self, command: bytes) -> Entry:
        entry = super().known(command)
        if needed(entry.command) > self._level:
            raise CodecError("no such command")
        return entry

    def apply(self, index: int, command: bytes) -> None:
        super().apply(index, command)
        if self.state.level > self._level:
            raise Violation(f"{self._me} understands level {self._level}, and goes on in level {self.state.level}")

    def freeze(self) -> Callable[[], bytes]:
        self._world.reference.check_state(self._me, self.state, self.state.index)
        return super().freeze()

    def decode(self, state: bytes) -> Callable[[int], None]:
        put = super().decode(state)

        def restore(index: int) -> None:
            put(index)
            self._world.reference.check_state(self._me, self.state, index)

        return restore


class CheckedRaft(HardenedRaft):
    """The real core; what it applies is told to the world, changes of voters and no-ops too."""

    world: "World"

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        index = self.applied_index + 1
        term = self.log[index - self.log[0][1]][2]
        if self.is_leader:
            self.world.witness.committed(self.world.servers[self.me], self.world.reference, index, term)
        self.world.reference.applied(self.me, index, term, command)
        super()._SyncObj__doApplyCommand(command)


class Making:
    """A snapshot that is made in the background: written at once, done a little later."""

    def __init__(self, world: "World", run: Callable[[], bytes]) -> None:
        self._world, self._done_at = world, world.clock.now + world.rng.choice((0.0, 0.05, 0.5))
        self._result: bytes | OSError
        try:
            self._result = run()
        except OSError as error:
            self._result = error

    def done(self) -> bool:
        return self._world.clock.now >= self._done_at

    def result(self) -> bytes:
        if isinstance(self._result, OSError):
            raise self._result
        return self._result


class Server:
    """One running node. Raises Corrupt if its disk is not what it wrote."""

    def __init__(self, world: "World", me: str, disk: SimDisk, offset: float) -> None:
        self.me, self.world, self.disk, self.offset = me, world, disk, offset
        self.held_until = 0.0
        """A sync is slow: nothing leaves, nothing is done before."""
        self.outbox: list[tuple[str, Message]] = []
        self.proposals = Proposals()
        self.open: dict[CommandId, bytes] = {}
        self.level = world.levels[me]
        self.machine = CheckedReplica(world, me, self.level)
        self.journal = CheckedJournal(world, me, disk)
        self.core = CheckedRaft(
            me,
            world.genesis,
            journal=self.journal,
            store=SnapshotStore(disk),
            machine=self.machine,
            network=self,
            background=lambda run: Making(world, run),
            timers=Timers(),
            rule=world.rule,
            rng=world.rng,
        )
        self.core.world = world
        self.pump = Pump(self.core, self.journal, self)
        self.mind = Mind(self) if world.minds else None

    # ---- the network of the core
    def send(self, peer: str, message: Message) -> bool:
        if not self.world.network.linked(self.me, peer):
            return False
        self.outbox.append((peer, message))
        return True

    def backlog(self, peer: str) -> int:
        return 0

    def flush(self) -> None:
        if self.world.slow_syncs and self.disk.syncs and self.world.rng.random() < 0.05:
            self.held_until = self.world.clock.now + self.world.rng.choice((0.05, 0.3, 1.5))
        self.disk.syncs = 0
        # The library asks for votes in the order of a set.
        for peer, message in sorted(self.outbox, key=lambda item: item[0]):
            self.world.network.send(self.me, peer, message, max(self.held_until, self.world.clock.now))
        self.outbox.clear()

    def drop(self) -> None:
        self.outbox.clear()

    # ---- its clients
    def propose(self, entry: Entry) -> None:
        """Raises CommandRejected: it needs a higher level than this node knows to be in force."""
        admit(self.machine.state, entry)
        if remembers(self.machine.state, entry.id):
            self.world.clients.answered(entry.id, self.machine.state)
            return
        command = encode_entry(entry)
        self.open[entry.id] = command
        self.proposals.add(entry.id, command)

    def turn(self) -> list[CommandId]:
        """What the agent does, then the log's thread; the commands that are answered."""
        if self.mind is not None:
            self.mind.turn()
        leader = None if self.core.leader is None else str(self.core.leader.id)
        self.proposals.see_leader(leader, self.core.term)
        for command in self.proposals.take_due(self.world.clock()):
            self.core.submit(command)
        self.pump.turn()
        progress = self.machine.take()
        if progress is None:
            return []
        answered = [command_id for command_id in self.open if remembers(progress.state, command_id)]
        for command_id in answered:
            self.proposals.remove(command_id)
            del self.open[command_id]
        return answered
