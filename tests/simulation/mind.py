"""What of the agent runs beside a simulated `Log`: the real `node.joining.registration`, `node.membership.manager`."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from consensus.codec import encode_entry
from consensus.core.configuration import VoterChange
from consensus.levels import admit, stamped
from consensus.log.glance import Glance, glance_at, status_of
from consensus.messages import Command, Rejected
from consensus.ports import CommandRejected, Committed, LogStatus, NoQuorum
from consensus.queries import outcome_of, remembered, remembers
from consensus.state import ClusterState, CommandId, Member, NodeId
from node.joining.joining import ClusterRecord
from node.joining.registration import Registration
from node.membership.manager import Membership
from node.membership.voters import Limits
from tests.simulation.loop import VirtualLoop

if TYPE_CHECKING:
    from tests.simulation.server import Server

LIMITS = Limits(max_voters=5, promote_after=0.5, away_after=6.0)


class SimLog:
    """The parts of `consensus.ports.Log` that these two use, on a simulated server."""

    def __init__(self, server: "Server") -> None:
        self._server, self._started_at = server, server.world.clock()
        self._waiting: dict[asyncio.Future[None], Callable[[Glance], bool]] = {}
        self.alive = True

    @property
    def state(self) -> ClusterState:
        return self._server.machine.state

    @property
    def glance(self) -> Glance:
        return glance_at(self._server.core, self.state)

    @property
    def status(self) -> LogStatus:
        return status_of(self.glance, self._server.world.clock(), self._started_at)

    async def propose(
        self, command: Command, *, actor: str, command_id: CommandId | None = None, timeout: float = 10.0
    ) -> Committed:
        command_id = command_id or self._server.world.fresh_id(self._server.me)
        entry = stamped(command_id, self._server.world.clock.now, actor, command)
        admit(self.state, entry)
        self._must_run()
        self._server.proposals.add(command_id, encode_entry(entry))
        try:
            await self._until(lambda glance: remembers(glance.state, command_id), timeout)
        finally:
            self._server.proposals.remove(command_id)
        known = remembered(self.state, command_id)
        outcome = outcome_of(known)
        if isinstance(outcome, Rejected):
            raise CommandRejected(outcome)
        return Committed(known.index, outcome)

    async def add_voter(self, node: NodeId, timeout: float = 5.0) -> None:
        await self._change(VoterChange(add=True, node=node), timeout)

    async def remove_voter(self, node: NodeId, timeout: float = 5.0) -> None:
        await self._change(VoterChange(add=False, node=node), timeout)

    async def _change(self, change: VoterChange, timeout: float) -> None:
        self._must_run()
        self._server.core.electorate.propose(change)
        self._server.world.note(self._server.me, f"{'adds' if change.add else 'removes'} the vote of {change.node}")
        await self._until(lambda glance: (change.node in glance.applied_voters) == change.add, timeout)

    async def transfer_leadership(self, to: NodeId | None, timeout: float = 5.0) -> None:
        self._must_run()
        self._server.core.handover.begin(to, timeout)
        self._server.world.note(self._server.me, f"hands over to {to}")
        await self._until(lambda glance: not glance.leads and glance.leader is not None, timeout)

    def _must_run(self) -> None:
        if not self.alive:
            raise NoQuorum("the log is not running")

    async def _until(self, holds: Callable[[Glance], bool], timeout: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[future] = holds
        try:
            async with asyncio.timeout(timeout):
                await future
        except TimeoutError:
            raise NoQuorum(f"not within {timeout} s") from None
        finally:
            del self._waiting[future]

    def turned(self) -> None:
        """After a turn of the log: whoever waits for what has come about goes on."""
        if self._waiting:
            glance = self.glance
            for future, holds in self._waiting.items():
                if not future.done() and holds(glance):
                    future.set_result(None)


class Mind:
    """The agent's loops of one server: it registers itself, and manages the voters while it leads."""

    def __init__(self, server: "Server") -> None:
        world = server.world
        me = Member(NodeId(server.me), server.me, ("10.0.0.1",), 1, 2, 3, 1, "0.1", 0.0, level=server.level)
        record = ClusterRecord(world.cluster_id, NodeId(world.genesis), "flock", "simulated")
        self._server, self.log = server, SimLog(server)
        self._me, self._record = me, record
        self._registration: asyncio.Task[None] | None = None
        self.leaving = False
        self._loop: VirtualLoop | None = None
        self.membership = Membership(self.log, LIMITS, clock=world.clock, level=server.level)  # type: ignore[arg-type]

    def turn(self) -> None:
        self.log.turned()
        self._running().run_due()

    def _running(self) -> VirtualLoop:
        """The loop, made when the server has its first turn: not every one gets so far."""
        if self._loop is None:
            clock = self._server.world.clock
            self._loop = VirtualLoop(lambda: clock.now)
            self._registration = self._loop.root(Registration(self._me, self._record, self.log, clock).run())  # type: ignore[arg-type]
            self._loop.root(self.membership.run())
        return self._loop

    def stop_registering(self) -> None:
        """This server is about to stop: it would bring itself back as active."""
        self.leaving = True
        if self._registration is not None:
            self._registration.cancel()

    def take_notice(self, node: str, seconds: float) -> "asyncio.Task[bool]":
        """A server says to this one, the leader, that it is about to stop; the answer is whether it may."""
        return self._running().create_task(self.membership.stopping(NodeId(node), seconds))

    def end(self) -> None:
        self.log.alive = False
        if self._loop is not None:
            self._loop.end()
