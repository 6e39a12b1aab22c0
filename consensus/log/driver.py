"""What drives the core, in the log's own thread: whatever happens to it is followed by a turn, which tells the outside.

Everything here belongs to that thread and is built in it, whole. An error in it ends the log: one with a hole is worse
than a node less.
"""

import asyncio
import concurrent.futures
import logging
import random
from collections.abc import Callable
from concurrent.futures import Executor

from consensus.core.base import now
from consensus.core.disk import LocalDisk
from consensus.core.hardened import HardenedRaft
from consensus.core.journal import Journal
from consensus.core.snapshot import SnapshotStore
from consensus.log.config import Credentials, RaftConfig
from consensus.log.glance import Glance, glance_at
from consensus.log.proposals import Proposals
from consensus.log.pump import Pump
from consensus.log.replica import Advance, Replica
from consensus.state import ClusterState, NodeId
from consensus.wire.frames import Message
from consensus.wire.transport import MtlsTransport, TransportEvents

log = logging.getLogger(__name__)

OnTurn = Callable[[Glance, Advance | None], None]
OnCrash = Callable[[BaseException], None]


class Driver:
    """One node's core with its journal, transport, replica and proposals. `start` once, then `stop`."""

    def __init__(
        self,
        config: RaftConfig,
        credentials: Credentials,
        initial: ClusterState,
        disk: LocalDisk,
        journal: Journal,
        pool: Executor,
        on_turn: OnTurn,
        on_crash: OnCrash,
    ) -> None:
        """`pool` encodes snapshots. `on_turn` is called after every turn, `on_crash` at most once."""
        self._config, self._pool, self._on_turn, self._on_crash = config, pool, on_turn, on_crash
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        self._halted = self._scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._replica = Replica(initial)
        self.proposals = Proposals()
        self.transport = MtlsTransport(
            config.me,
            config.cluster_id,
            credentials.server,
            credentials.client,
            credentials.identify,
            TransportEvents(self._peer_up, self._peer_down, self._peer_sent, self.crash),
            config.handshakes,
        )
        self.core = HardenedRaft(
            config.me,
            config.genesis,
            journal=journal,
            store=SnapshotStore(disk),
            machine=self._replica,
            network=self.transport,
            background=self._background,
            timers=config.timers,
            rule=config.compaction,
            rng=random.Random(),  # noqa: S311  # only spreads elections
        )
        self._pump = Pump(self.core, journal, self.transport)

    async def start(self) -> int:
        """The first turn, then listen; returns the port. Raises OSError."""
        self._turn()
        return await self.transport.start(self._config.host, self._config.port)

    async def until_ended(self) -> None:
        """Until somebody calls `end`."""
        await self._ending.wait()

    def end(self) -> None:
        """From any thread."""
        self._post(self._ending.set)

    async def stop(self) -> None:
        """No turn comes after this."""
        self._halted = True
        await self.transport.stop()

    # ------------------------------------------------------------ what happens
    def within(self, function: Callable[..., object], *arguments: object) -> None:
        """Everything that touches the core passes here: an error in it ends the log, and a turn follows."""
        if self._halted:
            return
        try:
            function(*arguments)
        except Exception as error:
            self.crash(error)
        else:
            if not self._scheduled:
                self._scheduled = True
                self._loop.call_soon(self._guarded_turn)

    def crash(self, error: BaseException) -> None:
        if not self._halted:
            self._halted = True
            log.critical("log.crashed", exc_info=error)
            self._on_crash(error)

    def _peer_up(self, peer: NodeId) -> None:
        self.within(self.core.connected_to, peer)

    def _peer_down(self, peer: NodeId) -> None:
        self.within(self.core.disconnected_from, peer)

    def _peer_sent(self, peer: NodeId, message: Message) -> None:
        self.within(self.core.receive, peer, message)

    def _background(self, run: Callable[[], bytes]) -> "concurrent.futures.Future[bytes]":
        """In another thread; a turn follows when it is done."""
        future = self._pool.submit(run)
        future.add_done_callback(lambda _: self.post(lambda: None))
        return future

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        """`within`, from any thread. After the end it does nothing."""
        self._post(self.within, function, *arguments)

    def _post(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    # ------------------------------------------------------------ a turn
    def _guarded_turn(self) -> None:
        self._scheduled = False
        if self._halted:
            return
        try:
            self._turn()
        except Exception as error:
            self.crash(error)

    def _turn(self) -> None:
        core = self.core
        leader = None if core.leader is None else str(core.leader.id)
        self.proposals.see_leader(leader, core.term)
        for command in self.proposals.take_due(now()):
            core.submit(command)
        self._pump.turn()
        advance = self._replica.take()
        if advance is not None:
            for _, entry in advance.entries:
                self.proposals.remove(entry.id)
        self._on_turn(glance_at(core, self._replica.state), advance)
        self._arm(min(self._pump.next_deadline, self.proposals.next_due))

    def _arm(self, deadline: float) -> None:
        """See to it that the next turn comes in time. An earlier timer stays: it only looks again."""
        when = self._loop.time() + max(0.001, deadline - now())
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        deadline = min(self._pump.next_deadline, self.proposals.next_due)
        if self._halted:
            return
        if now() >= deadline:
            self._guarded_turn()
        else:
            self._arm(deadline)
