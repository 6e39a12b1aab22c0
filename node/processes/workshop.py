"""Heavy work of the agent (parsing uploads, resolving specs) in processes of its own, started when needed.

Not `concurrent.futures`: a worker must be killed at a time limit, die with the agent, and cost nothing when idle.
"""

import asyncio
import contextlib
import pickle
import sys
from collections.abc import AsyncIterator
from typing import Any

from node import logs
from node.processes.children import ChildError, Supervisor
from node.processes.workshop_worker import HEADER_BYTES, Call, Raised, Returned, pack

log = logs.get("node.processes.workshop")

WORKERS = 2
"""So that a long upload does not hold up the submission of a job."""
WAITING = 64
"""Calls that may wait for a worker; more are refused."""
IDLE_SECONDS = 60.0
"""An unused worker is ended: its libraries take a hundred megabytes."""
LIMIT_SECONDS = 600.0
"""For one call."""
_PROGRAM = "from node.processes.workshop_worker import main; main()"
"""Not `-m`: as `__main__` its classes would have other names than here, and pickles go by names."""
_ALLOCATORS = {"ARROW_DEFAULT_MEMORY_POOL": "jemalloc", "MIMALLOC_PURGE_DELAY": "0"}
"""Arrow's own choice keeps what was freed for later: 50 MB more while a large file is read. The second is for the
platforms where the first is not built in."""
MAX_ANSWER_BYTES = 256 * 1024 * 1024


class WorkshopError(Exception):
    """The call's process was lost or ran too long, or its exception could not be passed on. The next call gets a new
    process."""


class WorkshopBusy(WorkshopError):
    """Too many calls are waiting."""


class WorkshopClosed(WorkshopError):
    """No process can be started: this machine's trouble, not the call's."""


class _Worker:
    """One process; closed by whoever finds it broken."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.idle_since = 0.0

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def call(self, call: Call) -> Returned | Raised:
        """Raises EOFError when the process ends, whatever the reason."""
        source, sink = self.process.stdout, self.process.stdin
        if source is None or sink is None:
            raise EOFError("the worker has no pipes")
        try:
            sink.write(pack(call))
            await sink.drain()
            size = int.from_bytes(await source.readexactly(HEADER_BYTES), "big")
            if size > MAX_ANSWER_BYTES:
                raise EOFError(f"an answer of {size} bytes")
            body = await source.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise EOFError("the pipe broke") from error
        answer: Returned | Raised = pickle.loads(body)  # noqa: S301  from our own child, see node.processes.workshop_worker
        return answer


class Workshop:
    """At most `WORKERS` processes; each call has one to itself. `run` the idle check as a root task."""

    def __init__(
        self,
        supervisor: Supervisor,
        limit: float = LIMIT_SECONDS,
        idle: float = IDLE_SECONDS,
        waiting: int = WAITING,
    ) -> None:
        """`waiting`: calls that may wait for a worker."""
        self._supervisor = supervisor
        self._most_waiting = waiting
        self._limit = limit
        self._idle_seconds = idle
        self._slots = asyncio.Semaphore(WORKERS)
        self._idle: list[_Worker] = []
        self._waiting = 0

    async def run(self, function: str, *args: Any, seconds: float | None = None) -> Any:
        """Call `module:name` with `args` (all of it picklable) in a worker; its result, or the exception it raised.
        `seconds`: its limit, if it is another than the workshop's.

        A call that is cancelled has its process killed.

        Raises:
            WorkshopError: the process crashed (memory?), ran longer than the limit, or raised what no pipe carries.
            WorkshopBusy: too many calls wait already.
            WorkshopClosed: no process can be started.
        """
        if self._waiting >= self._most_waiting:
            raise WorkshopBusy(f"{self._most_waiting} calls are waiting already")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._run(function, args, self._limit if seconds is None else seconds)
        finally:
            self._slots.release()

    async def close_idle(self) -> None:
        """Until cancelled: end workers that nobody has used for a while."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(self._idle_seconds / 4)
            for worker in [w for w in self._idle if clock() - w.idle_since >= self._idle_seconds]:
                self._idle.remove(worker)
                await self._end(worker)

    async def stop(self) -> None:
        """End the idle workers; running calls are their callers' to cancel."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(self._end(worker) for worker in idle))

    async def _run(self, function: str, args: tuple[Any, ...], seconds: float) -> Any:
        async with self._worker() as worker:
            try:
                async with asyncio.timeout(seconds):
                    answer = await worker.call(Call(function, args))
            except TimeoutError:
                raise WorkshopError(f"{function} took longer than {seconds:g} s") from None
            except EOFError as error:
                raise WorkshopError(await self._loss(worker, function)) from error
        if isinstance(answer, Returned):
            return answer.value
        raise answer.error or WorkshopError(f"{function} raised {answer.text}")

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator[_Worker]:
        """A worker for one call. Only after an orderly answer does it come back for another."""
        worker = await self._take()
        try:
            yield worker
        except BaseException:
            await asyncio.shield(self._end(worker))
            raise
        worker.idle_since = asyncio.get_running_loop().time()
        self._idle.append(worker)

    async def _take(self) -> _Worker:
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            await self._end(worker)
        try:
            argv = [sys.executable, "-c", _PROGRAM]
            process = await self._supervisor.launch(argv, _ALLOCATORS, name="workshop", pipes=True)
        except ChildError as error:
            raise WorkshopClosed(str(error)) from error
        log.debug("workshop.started", pid=process.pid)
        return _Worker(process)

    async def _end(self, worker: _Worker) -> None:
        if worker.process.stdin is not None:
            worker.process.stdin.close()
        await self._supervisor.kill(worker.process, grace=0)

    async def _loss(self, worker: _Worker, function: str) -> str:
        """Why the process is gone, for people."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5):
                await worker.process.wait()
        status = worker.process.returncode
        if status == -9:
            return f"{function} was killed: it probably needed more memory than this machine has"
        return f"the process running {function} ended with status {status}: {self._supervisor.tail('workshop', 5)}"
