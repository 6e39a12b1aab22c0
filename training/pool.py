"""The one process pool: calls functions in processes of its own, started when there is work and kept for the next call.

It is the agent's workshop and the executor without Ray. Not `concurrent.futures`: a worker must be killed at a time
limit, native code too, die with its owner, and cost nothing when idle.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec

from training.errors import PoolBusy, PoolClosed, TaskFailed, WorkerLost
from training.inbox import pass_on
from training.pool_worker import HEADER_BYTES, Call, Raised, Returned, Told, pack, unpack
from training.ports import Hear, Launcher, to_nobody

log = logging.getLogger(__name__)

START_SECONDS = 120.0
"""For a new process, on a machine that is busy: some import scikit-learn first."""
LOSS_SECONDS = 5.0
"""A process whose pipe broke has ended, or is about to."""
TAIL_LINES = 5
_PROGRAM = "from training.pool_worker import main; main()"
"""Not `-m`: as `__main__` its classes would have other names than here, and pickles go by names."""


class PoolSettings(msgspec.Struct, frozen=True):
    name: str
    """Of its processes, for their log."""
    workers: int
    """Processes at most; each call has one to itself."""
    waiting: int
    """Calls that may wait for a process; more are refused."""
    seconds: float
    """The limit of a call that has none of its own."""
    idle_seconds: float = 60.0
    """An unused process is ended: its libraries take a hundred megabytes and more."""
    environment: Mapping[str, str] = {}
    """Of the processes, beside the one they inherit."""
    preload: str = ""
    """`module:name`, called once in a new process, before the limit of its first call begins to run."""


class Pool:
    """Calls share nothing but the processes, one after the other. `run` `close_idle` for as long as the pool lives."""

    def __init__(self, launcher: Launcher, settings: PoolSettings) -> None:
        self._launcher = launcher
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.workers)
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._waiting = 0
        self._running = 0
        self._stopped = False

    @property
    def running(self) -> int:
        """Calls that have their process, or wait for it to start."""
        return self._running

    async def run(self, function: str, *args: Any, seconds: float | None = None) -> Any:
        """Call `module:name` with `args` (all of it picklable); its result, or the exception that it raised, as
        TaskFailed if no pipe carries it. Otherwise as `call`."""
        answer = await self.call(function, args, seconds)
        if isinstance(answer, Returned):
            return answer.value
        raise answer.error or TaskFailed(f"{function} raised {answer.text}")

    async def call(
        self,
        function: str,
        args: tuple[Any, ...],
        seconds: float | None = None,
        what: str = "",
        on_message: Hear | None = None,
    ) -> Returned | Raised:
        """What became of the function. `what` it is called in the reasons of errors. A call that is cancelled has its
        process killed. With `on_message` the function has an argument `emit` more, and what it tells by it comes here.

        Raises:
            TaskFailed: it ran for longer than `seconds`, or than the pool's own limit.
            WorkerLost: its process crashed, or was killed, for want of memory perhaps.
            PoolBusy: too many calls wait already.
            PoolClosed: no process can be started, or the pool was stopped.
        """
        frame, what = pack(Call(function, args, on_message is not None)), what or function
        limit = self._settings.seconds if seconds is None else seconds
        async with self._slot(), self._worker() as worker:
            try:
                async with asyncio.timeout(limit) as timeout:
                    return await worker.call(frame, on_message or to_nobody, timeout)
            except TimeoutError:
                raise TaskFailed(f"{what} took longer than {limit:g} s") from None
            except EOFError as error:
                raise WorkerLost(await self._loss(worker, what)) from error

    async def close_idle(self) -> None:
        """Until cancelled: end the processes that nobody has used for a while."""
        clock, idle_seconds = asyncio.get_running_loop().time, self._settings.idle_seconds
        while True:
            await asyncio.sleep(idle_seconds / 4)
            for worker in [w for w in self._idle if clock() - w.idle_since >= idle_seconds]:
                self._idle.remove(worker)
                await self._end(worker)

    async def stop(self) -> None:
        """End all processes. Calls under way are lost, and later ones refused. May be called twice."""
        self._stopped = True
        workers = [*self._idle, *self._busy]
        self._idle.clear()
        await asyncio.gather(*(self._end(worker) for worker in workers))

    @contextlib.asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._waiting >= self._settings.waiting:
            raise PoolBusy(f"{self._settings.waiting} calls are waiting already")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1
            self._slots.release()

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator["_Worker"]:
        """A process for one call. Only after an orderly answer does it come back for another."""
        worker = await self._free() or await self._launched()
        self._busy.add(worker)
        try:
            if not worker.ready:
                await self._begin(worker)
            yield worker
        except BaseException:
            await asyncio.shield(self._end(worker))
            raise
        finally:
            self._busy.discard(worker)
        worker.idle_since = asyncio.get_running_loop().time()
        self._idle.append(worker)

    async def _free(self) -> "_Worker | None":
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await self._end(worker)
        return None

    async def _launched(self) -> "_Worker":
        name, argv = self._settings.name, [sys.executable, "-c", _PROGRAM, self._settings.preload]
        if self._stopped:
            raise PoolClosed(f"{name} was stopped")
        try:
            process = await self._launcher.launch(argv, self._settings.environment, name, pipes=True)
        except OSError as error:
            raise PoolClosed(str(error)) from error
        log.debug("pool.started: %s, pid %s", name, process.pid)
        return _Worker(process)

    async def _begin(self, worker: "_Worker") -> None:
        """Until it has imported what it needs; that is no call's time."""
        name = self._settings.name
        if self._stopped:
            raise PoolClosed(f"{name} was stopped")
        try:
            async with asyncio.timeout(START_SECONDS):
                await worker.begin()
        except TimeoutError:
            raise PoolClosed(f"a process of {name} was not ready within {START_SECONDS:g} s") from None
        except EOFError as error:
            raise PoolClosed(await self._loss(worker, f"a start of {name}")) from error

    async def _end(self, worker: "_Worker") -> None:
        if worker.process.stdin is not None:
            worker.process.stdin.close()
        await self._launcher.kill(worker.process, 0)

    async def _loss(self, worker: "_Worker", what: str) -> str:
        """Why the process is gone, for people."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOSS_SECONDS):
                await worker.process.wait()
        status = worker.process.returncode
        if status == -9 and not self._stopped:
            return f"{what} was killed: it probably needed more memory than this machine has"
        tail = self._launcher.tail(self._settings.name, TAIL_LINES)
        return f"the process running {what} ended with status {status}" + (f": {tail}" if tail else "")


class _Worker:
    """One process; ended by whoever finds it broken."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.ready = False
        self.idle_since = 0.0

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def begin(self) -> None:
        """Raises EOFError, as `call`."""
        await self._read()
        self.ready = True

    async def call(self, frame: bytes, on_message: Hear, limit: asyncio.Timeout) -> Returned | Raised:
        """Raises EOFError when the process ends, whatever the reason."""
        sink = self.process.stdin
        try:
            if sink is not None:
                sink.write(frame)
                await sink.drain()
        except ConnectionError as error:
            raise EOFError("the pipe broke") from error
        answer: Told | Returned | Raised = await self._read()
        while isinstance(answer, Told):
            pass_on(answer.words, on_message, limit)
            answer = await self._read()
        return answer

    async def _read(self) -> Any:
        source = self.process.stdout
        if source is None:
            raise EOFError("the worker has no pipes")
        try:
            size = int.from_bytes(await source.readexactly(HEADER_BYTES))
            return unpack(await source.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("the pipe broke") from error
