"""The log's thread: its own event loop in which the core, the journal and the transport live.

Nothing that the rest of the process does can delay a heartbeat, save for the interpreter lock. Other threads
reach in through `call` and `ask`, and see the outside through the immutable `Glance` of every turn.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from consensus.core.disk import LocalDisk
from consensus.core.journal import Journal, JournalWriteFailed
from consensus.log.config import Credentials, RaftConfig
from consensus.log.driver import Driver, OnCrash, OnTurn
from consensus.ports import Beacon
from consensus.state import ClusterState, NodeId

log = logging.getLogger(__name__)

T = TypeVar("T")


class LogThread:
    """Runs one node's Raft. `on_turn` is called in its thread after every turn; `on_crash` once, when the log
    cannot go on: the process must stop, for a log with a hole is worse than a node less."""

    def __init__(
        self,
        config: RaftConfig,
        credentials: Credentials,
        initial: ClusterState,
        on_turn: OnTurn,
        on_crash: OnCrash,
    ) -> None:
        self._config, self._credentials, self._initial = config, credentials, initial
        self._on_turn, self._on_crash = on_turn, on_crash
        self._started: concurrent.futures.Future[int] = concurrent.futures.Future()
        self._thread = threading.Thread(target=self._run, name=f"raft-{config.me[:8]}", daemon=True)
        self._driver: concurrent.futures.Future[Driver] = concurrent.futures.Future()

    # ------------------------------------------------------------ from other threads
    def start(self) -> "concurrent.futures.Future[int]":
        """Begin; the future is the port once it listens, or why it cannot: OSError, Corrupt, LibraryMismatch."""
        self._thread.start()
        return self._started

    def call(self, function: Callable[[Driver], object]) -> None:
        """Run `function` in the thread before its next turn. After the end it does nothing."""
        driver = self._running()
        driver.post(function, driver)

    def ask(self, function: Callable[[Driver], T]) -> "concurrent.futures.Future[T]":
        """As `call`, with the outcome of `function`; its exceptions are the caller's, not the log's."""
        answer: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run(driver: Driver) -> None:
            if not answer.set_running_or_notify_cancel():
                return  # whoever asked has gone; to answer would be an error, and an error in here ends the log
            try:
                answer.set_result(function(driver))
            except Exception as error:
                answer.set_exception(error)

        self.call(run)
        return answer

    def beacons(self) -> Mapping[NodeId, Beacon]:
        return self._running().transport.beacons()

    def stop(self, seconds: float) -> None:
        """Blocks until the thread has ended. Raises TimeoutError."""
        if self._thread.ident is None:
            return
        if self._driver.exception(seconds) is None:  # or it has ended by itself, of what `start` has told
            self._driver.result().end()
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"the log's thread did not end within {seconds} s")

    def _running(self) -> Driver:
        if not self._driver.done():
            raise RuntimeError("the log was not started")
        return self._driver.result()

    # ------------------------------------------------------------ in the thread
    def _run(self) -> None:
        with asyncio.Runner() as runner:
            try:
                runner.run(self._live())
            except BaseException as error:
                if self._started.done():
                    self._driver.result().crash(error)
                    return
                if not self._driver.done():
                    self._driver.set_exception(error)
                self._started.set_exception(error)

    async def _live(self) -> None:
        disk = LocalDisk(self._config.directory)
        with ThreadPoolExecutor(1, thread_name_prefix="raft-snapshot") as pool, _open(disk) as journal:
            driver = Driver(
                self._config, self._credentials, self._initial, disk, journal, pool, self._on_turn, self._on_crash
            )
            self._driver.set_result(driver)
            try:
                self._started.set_result(await driver.start())
                await driver.until_ended()
            finally:
                await driver.stop()


@contextlib.contextmanager
def _open(disk: LocalDisk) -> Iterator[Journal]:
    journal = Journal(disk)
    try:
        yield journal
    finally:
        try:
            journal.close()
        except JournalWriteFailed as error:
            log.warning("log.closed_unwritten error=%s", error)
