"""A whole Raft cluster in virtual time: real cores, journals, snapshots and machines on simulated disks and links.

Everything follows from the seed, so a failing run can be replayed. What goes wrong is in `faults`.
"""

import random
from collections.abc import Callable, Iterable

from consensus.compaction import CompactionRule
from consensus.configuration import VoterChange
from consensus.disk import Corrupt
from consensus.ports import MembershipRefused
from consensus.state import CommandId
from consensus.wire import AppendEntries, AppendReply, Message, RequestVote, VoteGranted
from tests.simulation.checks import LogMatching, Reference, Violation
from tests.simulation.clients import Clients
from tests.simulation.clock import Clock
from tests.simulation.disk import Crash, SimDisk
from tests.simulation.network import Events, SimNetwork
from tests.simulation.server import Server

LIVE_AGAIN_SECONDS = 30.0
"""After the last fault, every node must be of one mind and every client answered within this."""
CHECK_QUORUM_SECONDS = 1.0
"""A leader that has not heard from a majority for so long is none after its next turn."""
QUORUM_SLACK = 0.01
Note = Callable[[float, str, str], None]


class World:
    """Servers, links and clients of one seed. `names` are voters from the start, except for the `learners`."""

    def __init__(
        self,
        seed: int,
        clock: Clock,
        *,
        names: Iterable[str] = "ABC",
        learners: Iterable[str] = "",
        rule: CompactionRule | None = None,
        big: bool = False,
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
        self.network = SimNetwork(clock, self.rng, Events(self._up, self._down, self._deliver))
        names = list(names)
        self.genesis = names[0]
        self.reference, self.matching = Reference(self.genesis), LogMatching()
        self.clients = Clients(self, self.rng, big=big)
        self._leaders: dict[int, str] = {}
        self._roles: dict[str, tuple[bool, int]] = {}
        self._promised: dict[str, int] = {}
        self._form(names, list(learners))

    def _form(self, names: list[str], learners: list[str]) -> None:
        for name in names + learners:
            self.start(name)
        self.run_until(lambda: self.servers[self.genesis].core.is_leader)
        self.clients.join(self.genesis)
        self.run_until(lambda: not self.clients.waiting)
        for name in names[1:]:
            self.run_until(lambda name=name: self._add(name))  # type: ignore[misc]
        voters = tuple(sorted(names))
        self.run_until(lambda: all(s.core.electorate.applied == voters for s in self.servers.values()))

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
        if isinstance(message, AppendEntries | AppendReply | RequestVote | VoteGranted):
            self._promised[peer] = max(self._promised.get(peer, 0), message.term)
        self._enter(owner).core.receive(peer, message)

    def _enter(self, name: str) -> Server:
        """From here on the engine's clock is this server's."""
        server = self.servers[name]
        self.clock.offset = server.offset
        return server

    # ------------------------------------------------------------ servers
    def start(self, name: str) -> None:
        """Start a server. With a rotten disk it must refuse. Raises Violation, Corrupt."""
        disk = self.disks.setdefault(name, SimDisk(self.rng))
        disk.crash_after = None
        self.clock.offset = self.rng.uniform(0.0, self.max_offset)
        try:
            server = Server(self, name, disk, self.clock.offset)
        except Corrupt as error:
            if name not in self.rotten:
                raise
            self.retired.add(name)
            self.note(name, f"refuses to start: {error}")
            return
        if name in self.rotten:
            raise Violation(f"{name} starts with a disk that has rotted")
        if server.core.term < self._promised.get(name, 0):
            raise Violation(f"{name} starts in term {server.core.term}, has acted in {self._promised[name]}")
        self.servers[name] = server
        self.note(name, f"starts: term {server.core.term}, log {server.journal[0][1]}..{server.core.last_index}")

    def crash(self, name: str, *, power_loss: bool = False) -> None:
        del self.servers[name]
        self._roles.pop(name, None)
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
        answered = server.turn()
        for command_id in answered:
            self.clients.answered(command_id, server.machine.state)
        self._check(server)

    def _check(self, server: Server) -> None:
        core = server.core
        if core.electorate.applied != self.reference.voters[core.applied_index]:
            raise Violation(f"{server.me} has the voters {core.electorate.applied} at entry {core.applied_index}")
        role = (core.is_leader, core.term)
        if role != self._roles.get(server.me):
            self._roles[server.me] = role
            self.note(server.me, f"{'leads' if core.is_leader else 'is in'} term {core.term}, log {core.last_index}")
            if core.is_leader:
                self._check_leader(server)
        quorum_age = self.clock() - core.quorum_at
        if core.is_leader and quorum_age > CHECK_QUORUM_SECONDS + QUORUM_SLACK:
            raise Violation(f"{server.me} leads without a majority for {quorum_age:.2f} s")

    def _check_leader(self, server: Server) -> None:
        first = self._leaders.setdefault(server.core.term, server.me)
        if first != server.me:
            raise Violation(f"{first} and {server.me} both lead term {server.core.term}")
        if server.core.term == max(self._leaders):
            # One that was stopped while it was elected may win an old term: it can commit nothing in it.
            self.reference.check_leader(server.me, server.journal[:])

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

    # ------------------------------------------------------------ the end
    def heal_and_check(self) -> None:
        """All faults end: every node must come to the same state soon, with every acknowledged write in it."""
        self.note("", "all faults end")
        self.heal()
        self.paused, self.slow_syncs, self.network.chaotic = {}, False, False
        for name, disk in self.disks.items():
            disk.crash_after = disk.full = None
            if name not in self.servers and name not in self.retired:
                self.start(name)
        self.run_until(self._settled, seconds=LIVE_AGAIN_SECONDS)
        for name, server in self.servers.items():
            state = server.machine.state
            self.reference.check_state(name, state, server.core.applied_index)
            lost = self.clients.acknowledged - set(state.recent)
            if lost:
                total = len(self.clients.acknowledged)
                raise Violation(f"{name} lost {len(lost)} of {total} acknowledged writes: {min(lost)}")

    def _settled(self) -> bool:
        leader = self.leader()
        if leader is None or self.clients.waiting:
            return False
        at = leader.core.last_index
        return all(s.core.applied_index == at and s.core.leader is not None for s in self.servers.values())
