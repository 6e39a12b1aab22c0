"""A whole Raft cluster in virtual time: real cores, journals, snapshots and machines on simulated disks and links.

Everything follows from the seed, so a failing run can be replayed. What goes wrong is in `faults`.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable

from consensus.core.compaction import CompactionRule
from consensus.core.configuration import VoterChange
from consensus.core.disk import Corrupt
from consensus.levels import TooNew
from consensus.ports import MembershipRefused
from consensus.state import CommandId
from consensus.wire.frames import Message
from node.membership.voters import wanted_voters
from tests.simulation.checks import LogMatching, Reference, Violation
from tests.simulation.clients import Clients
from tests.simulation.clock import NEW_LEVEL, Clock
from tests.simulation.disk import Crash, SimDisk
from tests.simulation.forming import Forming
from tests.simulation.mind import LIMITS
from tests.simulation.network import Events, SimNetwork
from tests.simulation.server import Server
from tests.simulation.training import SimTrainer
from tests.simulation.witness import Witness

Note = Callable[[float, str, str], None]


class World:
    """Servers, links and clients of one seed. `names` are voters from the start, except for the `learners`.

    With `minds` the agents' own loops decide who votes; with a rule of `formation` all nodes start blank."""

    def __init__(
        self,
        seed: int,
        clock: Clock,
        *,
        names: Iterable[str] = "ABC",
        learners: Iterable[str] = "",
        rule: CompactionRule | None = None,
        big: bool = False,
        minds: bool = False,
        new_level: int = NEW_LEVEL,
        formation: str = "",
        note: Note = lambda at, who, what: None,
    ) -> None:
        self.rng = random.Random(seed)
        self.clock, self.rule, self._note = clock, rule or CompactionRule(), note
        self.slow_syncs = False
        self.max_offset = 0.0
        self.disks: dict[str, SimDisk] = {}
        self.servers: dict[str, Server] = {}
        self.paused: dict[str, float] = {}
        self.retired: set[str] = set()
        """Their disk is damaged: they never come back under this name."""
        self.rotten: set[str] = set()
        self.minds = minds
        self.cluster_id = "simulated"
        self.new_level = new_level
        self.levels: dict[str, int] = defaultdict(lambda: new_level - 1)
        """What each node's release understands."""
        self.outdated: set[str] = set()
        """They have stopped because the log needs a newer release: they are upgraded before they start again."""
        self._ids = 0
        self.network = SimNetwork(clock, self.rng, Events(self._up, self._down, self._deliver))
        names = list(names)
        self.genesis = "" if formation else names[0]
        self.reference, self.matching = Reference(self.genesis), LogMatching()
        self.clients = Clients(self, self.rng, SimTrainer(self, seed), big=big)
        self.witness = Witness(clock, self.note)
        self.forming = Forming(self, seed, formation, [*names, *learners]) if formation else None
        if self.forming is None:
            self._form_or_close(names, list(learners))

    def _form_or_close(self, names: list[str], learners: list[str]) -> None:
        try:
            self._form(names, learners)
        except BaseException:
            self.close()
            raise

    def _form(self, names: list[str], learners: list[str]) -> None:
        for name in names + learners:
            self.start(name)
        self.run_until(lambda: self.servers[self.genesis].core.is_leader)
        self.clients.join(self.genesis)
        self.run_until(lambda: not self.clients.waiting)
        if self.minds:
            everybody = wanted_voters(len(self.servers), LIMITS.max_voters)
            self.run_until(lambda: all(len(s.core.electorate.applied) == everybody for s in self.servers.values()))
            return
        for name in names[1:]:
            self.run_until(lambda name=name: self._add(name))  # type: ignore[misc]
        voters = tuple(sorted(names))
        self.run_until(lambda: all(s.core.electorate.applied == voters for s in self.servers.values()))

    def found(self, name: str) -> None:
        """A blank node forms the cluster."""
        if self.genesis:
            raise Violation(f"{self.genesis} and {name} both form a cluster")
        self.genesis, self.reference = name, Reference(name)
        self.note(name, "forms the cluster")
        self.start(name)
        self.clients.join(name)

    def everyone(self) -> list[str]:
        """All nodes that have ever been there, blank ones too."""
        return sorted({*self.disks, *(self.forming.names if self.forming is not None else ())})

    def fresh_id(self, name: str) -> CommandId:
        self._ids += 1
        return CommandId(f"{name}.{self._ids}")

    def _add(self, name: str) -> bool:
        leader = self.leader()
        if leader is not None and name not in leader.core.electorate.voters:
            self.change_voters(leader, VoterChange(add=True, node=name))
        return leader is not None and name in leader.core.electorate.applied

    def change_voters(self, leader: Server, change: VoterChange) -> None:
        self.clock.offset = leader.offset
        try:
            leader.core.electorate.propose(change)
        except MembershipRefused:
            return
        self.note(leader.me, f"{'adds' if change.add else 'removes'} the vote of {change.node}")

    def hand_over(self, leader: Server, to: str, seconds: float = 1.0) -> None:
        self.clock.offset = leader.offset
        try:
            leader.core.handover.begin(to, seconds)
        except MembershipRefused:
            return
        self.note(leader.me, f"hands over to {to}")

    def repeat(self, server: Server, command_id: CommandId, times: int) -> None:
        """Send an open command again, many times: every repeat is an entry of the log."""
        self.clock.offset = server.offset
        for _ in range(times if command_id in server.open else 0):
            server.core.submit(server.open[command_id])

    def close(self) -> None:
        """Whatever has come of it."""
        for server in self.servers.values():
            if server.mind is not None:
                server.mind.end()

    def note(self, who: str, what: str) -> None:
        self._note(self.clock.now, who, what)

    # ------------------------------------------------------------ links
    def cut_off(self, victim: str) -> None:
        """Nothing passes between one server and the others, and every connection of it is dropped."""
        for other in self.disks:
            if other != victim:
                self.network.blocked |= {(victim, other), (other, victim)}
                self.network.reset(victim, other)
                self.network.reset(other, victim)

    def heal(self) -> None:
        self.network.blocked = set()

    def _up(self, owner: str, peer: str) -> None:
        self._enter(owner).core.connected_to(peer)

    def _down(self, owner: str, peer: str) -> None:
        if owner in self.servers:
            server = self._enter(owner)
            server.outbox = [(to, message) for to, message in server.outbox if to != peer]
            server.core.disconnected_from(peer)

    def _deliver(self, owner: str, peer: str, message: Message) -> None:
        self.witness.arrived(peer, owner, message)
        try:
            self._enter(owner).core.receive(peer, message)
        except TooNew as error:
            self.crash(owner)
            self._too_new(owner, error)

    def deliver_late(self, runs: Callable[[str], bool] = lambda name: True) -> None:
        """Messages that were held back on their way arrive."""
        for held in self.network.release(runs):
            if (held.to, held.sender) in self.network.links:
                self.or_die(held.to, lambda held=held: self._deliver(held.to, held.sender, held.message))  # type: ignore[misc]

    def _enter(self, name: str) -> Server:
        """From here on the library's clock is this server's."""
        server = self.servers[name]
        self.clock.offset = server.offset
        return server

    # ------------------------------------------------------------ servers
    def start(self, name: str) -> None:
        """Start a server. With a rotten disk it must refuse. Raises Violation, Corrupt."""
        disk = self.disks.setdefault(name, SimDisk(self.rng))
        disk.crash_after = None
        if name in self.outdated:
            self.outdated.remove(name)
            self.levels[name] = self.new_level
        self.clock.offset = self.rng.uniform(0.0, self.max_offset)
        try:
            server = Server(self, name, disk, self.clock.offset)
        except Corrupt as error:
            if name not in self.rotten:
                raise
            self.retired.add(name)
            self.note(name, f"refuses to start: {error}")
            return
        except TooNew as error:
            self._too_new(name, error)
            return
        if name in self.rotten:
            raise Violation(f"{name} starts with a disk that has rotted")
        self.witness.started(server)
        self.servers[name] = server

    def _too_new(self, name: str, error: TooNew) -> None:
        """A server has stopped, or not started, for want of a newer release."""
        if self.reference.state.level <= self.levels[name]:
            raise Violation(f"{name} needs no newer release: {error}")
        self.outdated.add(name)
        self.note(name, f"must not go on: {error}")

    def restart(self, name: str, level: int) -> None:
        """Install another release, as in a rolling upgrade."""
        if name in self.servers:
            self.crash(name)
        self.levels[name] = level
        self.note(name, f"has a release of level {level} now")
        self.start(name)

    def crash(self, name: str, *, power_loss: bool = False) -> None:
        mind = self.servers.pop(name).mind
        if mind is not None:
            mind.end()
        self.network.vanish(name, silently=power_loss and self.rng.random() < 0.5)
        if power_loss:
            self.disks[name].power_loss()
        self.note(name, "loses power" if power_loss else "is killed")

    def leader(self) -> Server | None:
        leading = [s for s in self.servers.values() if s.core.is_leader]
        return max(leading, key=lambda s: s.core.term, default=None)

    def put(self, name: str) -> CommandId:
        return self.clients.put(name)

    # ------------------------------------------------------------ time
    def turn(self, name: str) -> None:
        """One turn of a server that is not stopped, and what must be true of it then."""
        server = self._enter(name)
        self.network.sweep(name)
        try:
            answered = server.turn()
        except TooNew as error:
            self.crash(name)
            self._too_new(name, error)
            return
        for command_id in answered:
            self.clients.answered(command_id, server.machine.state)
        self.witness.turned(server, self.reference, self.genesis)

    def or_die(self, name: str, action: Callable[[], None]) -> None:
        """Do something that may end in the middle of an operation on the disk."""
        try:
            action()
        except Crash:
            self.disks[name].crash_after = None
            self.crash(name, power_loss=self.rng.random() < 0.7)

    def quiet_step(self, seconds: float = 0.02) -> None:
        """Time passes, nothing fails, every message arrives."""
        self.clock.now += seconds
        if self.forming is not None:
            self.forming.step()
        self.network.dial(sorted(self.servers))
        self.clients.retry()
        for name in sorted(self.servers):
            self.turn(name)
        for end in self.network.busy():
            while self.network.deliver(end):
                pass

    def run_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = self.clock.now + seconds
        while not condition():
            if self.clock.now > deadline:
                raise Violation(f"not reached within {seconds} s")
            self.quiet_step()
