"""The log's thread: its own event loop in which the core, the journal and the transport live.

Nothing that the rest of the process does can delay a heartbeat, save for the interpreter lock. Other threads
reach in through `call` and `ask`, and see the outside through the immutable `Glance` of every turn.
"""

import asyncio
import concurrent.futures
import logging
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from consensus.core.disk import LocalDisk
from consensus.core.engine import now
from consensus.core.hardened import HardenedRaft
from consensus.core.journal import Journal, JournalWriteFailed
from consensus.core.snapshot import SnapshotStore
from consensus.log.config import Credentials, RaftConfig
from consensus.log.glance import Glance, glance_at
from consensus.log.proposals import Proposals
from consensus.log.pump import Pump
from consensus.log.replica import Progress, Replica
from consensus.state import ClusterState, NodeId
from consensus.wire.frames import Message
from consensus.wire.transport import MtlsTransport, TransportEvents

log = logging.getLogger(__name__)

T = TypeVar("T")


OnTurn = Callable[[Glance, Progress | None], None]


class EngineRoom:
    """Runs one node's Raft. `on_turn` is called in its thread after every turn; `on_crash` once, when the log
    cannot go on: the process must stop, for a log with a hole is worse than a node less."""

    def __init__(
        self,
        config: RaftConfig,
        credentials: Credentials,
        initial: ClusterState,
        on_turn: OnTurn,
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._config, self._on_turn, self._on_crash = config, on_turn, on_crash
        self._replica = Replica(initial)
        self._proposals = Proposals()
        self._credentials = credentials
        self._started: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name=f"raft-{config.me[:8]}", daemon=True)
        self._halted = self._scheduled = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ from other threads
    def start(self) -> "concurrent.futures.Future[int]":
        """Begin; the future is the port once it listens, or why it cannot: OSError, Corrupt, EngineMismatch."""
        self._thread.start()
        return self._started

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Run `function` in the thread before its next turn. After the end it does nothing."""
        self._post(self._within, function, *arguments)

    def _post(self, callback: Callable[..., object], *arguments: object) -> None:
        if self._loop is None:
            raise RuntimeError("the log was not started")
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            if not self._loop.is_closed():
                raise

    def ask(self, function: Callable[[], T]) -> "concurrent.futures.Future[T]":
        """As `call`, with the outcome of `function`; its exceptions are the caller's, not the log's."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            if not answer.set_running_or_notify_cancel():
                return  # whoever asked has gone; to answer would be an error, and an error in here ends the log
            try:
                answer.set_result(function())
            except Exception as error:
                answer.set_exception(error)

        self.call(run)
        return answer

    def stop(self, seconds: float) -> None:
        """Blocks until the thread has ended. Raises TimeoutError."""
        if self._thread.ident is None:
            return
        self._post(lambda: self._stopping.set())
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"the log's thread did not end within {seconds} s")

    # ------------------------------------------------------------ in the thread: life
    def _run(self) -> None:
        with asyncio.Runner() as runner:
            try:
                runner.run(self._live())
            except BaseException as error:
                if self._started.done():
                    self._crash(error)
                else:
                    self._started.set_exception(error)
            finally:
                self._halted = True

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        disk = LocalDisk(self._config.directory)
        with ThreadPoolExecutor(1, thread_name_prefix="raft-snapshot") as pool:
            self._journal = Journal(disk)
            try:
                self._build(disk, pool)
                self._turn()
                port = await self._transport.start(self._config.host, self._config.port)
                self._started.set_result(port)
                await self._stopping.wait()
            finally:
                self._halted = True
                await self._transport.stop()
                self._close_journal()

    def _build(self, disk: LocalDisk, pool: ThreadPoolExecutor) -> None:
        config, credentials = self._config, self._credentials
        events = TransportEvents(self._peer_up, self._peer_down, self._peer_sent, self._crash)
        self._transport = MtlsTransport(
            config.me,
            config.cluster_id,
            credentials.server,
            credentials.client,
            credentials.identify,
            events,
            config.handshakes,
        )

        def background(run: Callable[[], bytes]) -> "concurrent.futures.Future[bytes]":
            future = pool.submit(run)
            future.add_done_callback(lambda _: self.call(lambda: None))
            return future

        self._core = HardenedRaft(
            config.me,
            config.genesis,
            journal=self._journal,
            store=SnapshotStore(disk),
            machine=self._replica,
            network=self._transport,
            background=background,
            timers=config.timers,
            rule=config.compaction,
            rng=random.Random(),  # noqa: S311  # only spreads elections
        )
        self._pump = Pump(self._core, self._journal, self._transport)

    def _close_journal(self) -> None:
        try:
            self._journal.close()
        except JournalWriteFailed as error:
            log.warning("log.closed_unwritten error=%s", error)

    # ------------------------------------------------------------ in the thread: what happens
    def _peer_up(self, peer: NodeId) -> None:
        self._within(self._core.connected_to, peer)

    def _peer_down(self, peer: NodeId) -> None:
        self._within(self._core.disconnected_from, peer)

    def _peer_sent(self, peer: NodeId, message: Message) -> None:
        self._within(self._core.receive, peer, message)

    def _within(self, function: Callable[..., object], *arguments: object) -> None:
        """Everything that touches the core passes here: an error in it ends the log, and a turn follows."""
        if self._halted:
            return
        try:
            function(*arguments)
        except Exception as error:
            self._crash(error)
        else:
            if not self._scheduled:
                self._scheduled = True
                asyncio.get_running_loop().call_soon(self._guarded_turn)

    def _guarded_turn(self) -> None:
        self._scheduled = False
        if self._halted:
            return
        try:
            self._turn()
        except Exception as error:
            self._crash(error)

    def _crash(self, error: BaseException) -> None:
        if not self._halted:
            self._halted = True
            log.critical("log.crashed", exc_info=error)
            self._on_crash(error)

    # ------------------------------------------------------------ in the thread: a turn
    def _turn(self) -> None:
        core = self._core
        leader = None if core.leader is None else str(core.leader.id)
        self._proposals.see_leader(leader, core.term)
        for command in self._proposals.take_due(now()):
            core.submit(command)
        self._pump.turn()
        progress = self._replica.take()
        if progress is not None:
            for _, entry in progress.entries:
                self._proposals.remove(entry.id)
        self._on_turn(glance_at(core, self._replica.state), progress)
        self._arm(min(self._pump.next_deadline, self._proposals.next_due))

    def _arm(self, deadline: float) -> None:
        """See to it that the next turn comes in time. An earlier timer stays: it only looks again."""
        loop = asyncio.get_running_loop()
        when = loop.time() + max(0.001, deadline - now())
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = loop.call_at(when, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        deadline = min(self._pump.next_deadline, self._proposals.next_due)
        if self._halted:
            return
        if now() >= deadline:
            self._guarded_turn()
        else:
            self._arm(deadline)

    # ------------------------------------------------------------ in the thread: reached through `call` and `ask`
    @property
    def core(self) -> HardenedRaft:
        return self._core

    @property
    def transport(self) -> MtlsTransport:
        return self._transport

    @property
    def proposals(self) -> Proposals:
        return self._proposals
