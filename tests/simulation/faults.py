"""What goes wrong, and how often: one random step of a world."""

import errno
from collections.abc import Callable

import msgspec

from consensus.core.configuration import VoterChange
from consensus.core.snapshot import FILE as SNAPSHOT_FILE
from consensus.state import NodeId
from node.membership.voters import wanted_voters
from tests.simulation.goodbye import Goodbye
from tests.simulation.mind import LIMITS
from tests.simulation.network import End
from tests.simulation.plots import PLOTS, Plot
from tests.simulation.world import World


class Profile(msgspec.Struct, frozen=True):
    """Which faults a run has, beside kills, power losses, resets, partitions, pauses and hand-overs."""

    one_way: bool = True
    full_disks: bool = True
    slow_syncs: bool = True
    rot: bool = True
    jumps: bool = True
    """Each server has its own clock, which jumps ahead now and then, as after the sleep of a machine."""
    chaotic: bool = False
    voters: str = "random"
    """Who changes the voters: "nobody", "random" requests, or the "rules" that a real leader follows."""
    releases: bool = False
    """Nodes of two releases, which are exchanged one by one."""
    careful: bool = False
    """Whoever takes nodes back to the older release sees each one work before the next, as the manual says."""
    plot: str = ""
    """A name of `plots`: few other faults then."""


def all_work(world: World) -> bool:
    """Every node runs, has all that is committed, votes if it is to, and is known by the release that it has."""
    known = world.reference.state.members
    return (
        world.servers.keys() == world.disks.keys() == set(known)
        and len(world.reference.voters[-1]) == wanted_voters(len(known), LIMITS.max_voters)
        and all(known[NodeId(name)].level == world.levels[name] for name in world.servers)
        and all(s.core.applied_index >= len(world.reference.commands) - 1 for s in world.servers.values())
    )


class Chaos:
    """Drives one world."""

    def __init__(self, world: World, profile: Profile) -> None:
        self._world, self._profile, self._rng = world, profile, world.rng
        world.network.chaotic = profile.chaotic
        world.slow_syncs = profile.slow_syncs
        world.max_offset = 1000.0 if profile.jumps else 0.0
        self._goodbyes: dict[str, Goodbye] = {}
        self._table: list[tuple[float, Callable[[], None]]] = [
            (0.30, self._put),
            (0.006, self._reset),
            (0.004, self._partition),
            (0.004 if profile.one_way else 0.0, self._one_way),
            (0.012, world.heal),
            (0.003, self._pause),
            (0.002, self._die_at_the_disk),
            (0.003, self._crash),
            (0.011, self._start_some),
            (0.003, self._hand_over),
            (0.002 if profile.full_disks else 0.0, self._fill_disk),
            (0.004, self._free_disks),
            (0.002 if profile.rot else 0.0, self._rot),
            (0.002 if profile.jumps else 0.0, self._jump),
            (0.006 if profile.voters == "random" else 0.0, self._change_voters),
            (0.003 if profile.voters == "rules" else 0.0, self._stop_some),
            (0.060 if profile.releases else 0.0, self._upgrade),
            (0.006 if profile.releases else 0.0, self._downgrade),
        ]
        self._plot = Plot(world, PLOTS[profile.plot]) if profile.plot else None
        if self._plot is not None:
            self._table = [(0.30, self._put), (0.001, self._crash), (0.011, self._start_some), (0.002, self._reset)]

    # ------------------------------------------------------------ one step
    def step(self) -> None:
        world, rng = self._world, self._rng
        world.clock.now += rng.choice((0.002, 0.01, 0.03))
        world.network.dial([name for name in sorted(world.servers) if self._runs(name)])
        world.clients.retry()
        for name in sorted(world.servers):
            if rng.random() < 0.6 and self._runs(name):
                world.or_die(name, lambda name=name: world.turn(name))  # type: ignore[misc]
        busy = world.network.busy()
        rng.shuffle(busy)
        for end in busy:
            if self._runs(end.owner):
                world.or_die(end.owner, lambda end=end: self._deliver_some(end))  # type: ignore[misc]
        for name, goodbye in list(self._goodbyes.items()):
            if goodbye.said():
                del self._goodbyes[name]
        if world.forming is not None:
            world.forming.step()
        if self._plot is not None:
            self._plot.step()
        world.deliver_late(self._runs)
        self._fault()

    def _runs(self, name: str) -> bool:
        world = self._world
        server = world.servers.get(name)
        return server is not None and max(world.paused.get(name, 0.0), server.held_until) <= world.clock.now

    def _deliver_some(self, end: End) -> None:
        for _ in range(self._rng.choice((0, 0, 1, 2, 5))):
            if not self._world.network.deliver(end):
                return

    def _fault(self) -> None:
        if not self._world.servers:
            self._start_some()
            return
        if self._world.forming is not None and self._world.forming.calm:
            return
        dice = self._rng.random()
        for share, fault in self._table:
            dice -= share
            if dice < 0:
                fault()
                return

    # ------------------------------------------------------------ the faults
    def _any(self) -> str:
        return self._rng.choice(sorted(self._world.servers))

    def _two(self) -> tuple[str, str] | None:
        alive = sorted(self._world.servers)
        return None if len(alive) < 2 else tuple(self._rng.sample(alive, 2))  # type: ignore[return-value]

    def _put(self) -> None:
        if self._world.clients.joined:
            self._world.put(self._any())

    def _reset(self) -> None:
        if (pair := self._two()) is not None:
            self._world.network.reset(*pair)
            self._world.note(pair[0], f"drops its connection to {pair[1]}")

    def _partition(self) -> None:
        everyone = self._world.everyone()
        side = {name for name in everyone if self._rng.random() < 0.5}
        cut = {(a, b) for a in everyone for b in everyone if a != b and (a in side) != (b in side)}
        if self._rng.random() < 0.4:
            pairs = [(a, b) for a in everyone for b in everyone if a < b and self._rng.random() < 0.4]
            cut = {*pairs, *((b, a) for a, b in pairs)}
        self._world.network.blocked = cut
        self._world.note("", f"partition: {' '.join(sorted(f'{a}{b}' for a, b in cut if a < b))}")
        if self._rng.random() < 0.5:
            for a, b in sorted(cut):
                self._world.network.reset(a, b)

    def _one_way(self) -> None:
        if (pair := self._two()) is not None:
            self._world.network.blocked |= {pair}
            self._world.note("", f"nothing arrives from {pair[0]} at {pair[1]}")

    def _pause(self) -> None:
        name, seconds = self._any(), self._rng.random() * 3
        self._world.paused[name] = self._world.clock.now + seconds
        self._world.note(name, f"is stopped for {seconds:.2f} s")

    def _die_at_the_disk(self) -> None:
        # Dies within its next operations on the disk: in the middle of a turn.
        self._world.disks[self._any()].crash_after = self._rng.randint(0, 3)

    def _crash(self) -> None:
        if len(self._world.servers) > 1:
            self._world.crash(self._any(), power_loss=self._rng.random() < 0.7)

    def _start_some(self) -> None:
        for name in sorted(self._world.disks.keys() - self._world.servers.keys() - self._world.retired):
            if self._rng.random() < 0.5:
                self._world.start(name)

    def _hand_over(self) -> None:
        leader, to = self._world.leader(), self._any()
        if leader is not None and to != leader.me and to in leader.core.electorate.voters:
            self._world.hand_over(leader, to)

    def _fill_disk(self) -> None:
        name = self._any()
        self._world.disks[name].full = OSError(errno.ENOSPC, "No space left on device")
        self._world.note(name, "has a full disk")

    def _free_disks(self) -> None:
        for disk in self._world.disks.values():
            disk.full = None

    def _rot(self) -> None:
        """One server's disk loses a bit while it is off; it must never start with it. A new node takes its place."""
        world = self._world
        leader = world.leader()
        if world.rotten or leader is None or len(leader.core.electorate.voters) < 3:
            return
        name = self._any()
        if name == leader.me:
            return
        world.crash(name, power_loss=True)
        disk = world.disks[name]
        file = self._rng.choice([file for file in ("journal", SNAPSHOT_FILE) if file in disk.files])
        world.rotten.add(name)
        world.note(name, f"loses a bit of its {file} at byte {disk.rot(file)}")
        disk.full = None
        world.start(name)
        world.levels[f"{name}2"] = world.levels[name]
        world.start(f"{name}2")

    def _jump(self) -> None:
        server = self._world.servers[self._any()]
        server.offset += self._rng.choice((0.3, 2.0, 100.0))
        self._world.note(server.me, "sees its clock jump ahead")

    # ------------------------------------------------------------ releases
    def _upgrade(self) -> None:
        older = [name for name in sorted(self._world.servers) if self._world.levels[name] < self._world.new_level]
        if older:
            self._world.restart(self._rng.choice(older), self._world.new_level)

    def _downgrade(self) -> None:
        """Fine until the newer level is in force; a node that comes too late with it must refuse to go on."""
        newer = [name for name in sorted(self._world.servers) if self._world.levels[name] == self._world.new_level]
        if newer and (not self._profile.careful or all_work(self._world)):
            self._world.restart(self._rng.choice(newer), self._world.new_level - 1)

    # ------------------------------------------------------------ voters
    def _stop_some(self) -> None:
        """One or more nodes say goodbye to the leader and stop, as when a cluster is scaled down, or stopped."""
        alive = sorted(self._world.servers)
        some = self._rng.choice((1, 1, len(alive) // 2, len(alive)))
        for name in self._rng.sample(alive, some):
            if name not in self._goodbyes:
                self._goodbyes[name] = Goodbye(self._world, name)

    def _change_voters(self) -> None:
        leading = [s for s in self._world.servers.values() if s.core.is_leader]
        if not leading:
            return
        leader = self._rng.choice(leading)
        name = self._rng.choice("ABCDE")
        if name not in self._world.disks:
            self._world.start(name)
            return
        voters = leader.core.electorate.voters
        if (name in voters and len(voters) <= 3) or name in self._world.retired:
            return
        self._world.change_voters(leader, VoterChange(add=name not in voters, node=name))
