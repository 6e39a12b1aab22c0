"""The executor without Ray: worker processes of this machine, started when there is work, closed when idle."""

import asyncio
import contextlib
import logging
import os
import pickle
import sys
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from consensus.state import NodeId
from training.errors import TaskFailed, TrainingError, WorkerLost
from training.inline_worker import HEADER, frame
from training.places import Places
from training.ports import Capacity, Task

log = logging.getLogger(__name__)

_START_SECONDS = 120.0
"""For a worker to import scikit-learn, on a machine that is busy."""
_MAX_DATASETS = 16
_NOBODY = NodeId("")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "ARROW_NUM_THREADS")


class InlineExecutor:
    """At most `workers` tasks at a time, and no more than this node's share; each in its own process, which is kept for
    the next one.

    `idle_seconds`: after so long without work a process is closed, so that an idle node stays small.
    """

    def __init__(self, workers: int, idle_seconds: float = 60.0, node: NodeId = _NOBODY) -> None:
        self._workers = workers
        self._idle_seconds = idle_seconds
        self._node = node
        self._places = Places()
        self._places.offer({node: workers})
        self._idle: list[tuple[float, _Worker]] = []
        self._busy: set[_Worker] = set()
        self._parts: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._closer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._closer = asyncio.create_task(self._close_idle(), name="inline-close-idle")

    async def stop(self) -> None:
        if self._closer is not None:
            self._closer.cancel()
            await asyncio.wait([self._closer], timeout=5)
        workers = [*self._busy, *(worker for _, worker in self._idle)]
        self._idle.clear()
        for worker in workers:
            await worker.kill()

    def capacity(self) -> Capacity:
        return Capacity(nodes=1, cpus=float(self._places.total), cpus_used=float(len(self._busy)))

    def allot(self, shares: Mapping[NodeId, int]) -> None:
        self._places.offer({self._node: min(self._workers, shares.get(self._node, self._workers))})

    async def share(self, key: str, parts: Sequence[Path]) -> None:
        self._parts[key] = tuple(str(part) for part in parts)
        self._parts.move_to_end(key)
        while len(self._parts) > _MAX_DATASETS:
            self._parts.popitem(last=False)

    async def run(self, task: Task) -> object:
        async with self._places.taken(task.cpus):
            sources = self._parts.get(task.data_key)
            if sources is None:
                raise WorkerLost(f"dataset {task.data_key} is not shared")
            self._parts.move_to_end(task.data_key)
            worker = self._idle.pop()[1] if self._idle else _Worker()
            self._busy.add(worker)
            try:
                return await self._attempt(worker, task, sources)
            finally:
                self._busy.discard(worker)
                if worker.usable:
                    self._idle.append((time.monotonic(), worker))
                else:
                    await worker.kill()

    async def _attempt(self, worker: "_Worker", task: Task, sources: Sequence[str]) -> object:
        await worker.start()
        try:
            async with asyncio.timeout(task.seconds):
                good, value = await worker.call((task.function, task.payload, task.data_key, sources))
        except TimeoutError:
            raise TaskFailed(f"fit took longer than {task.seconds:g} s") from None
        if not good:
            raise TaskFailed(str(value))
        return value

    async def _close_idle(self) -> None:
        while True:
            await asyncio.sleep(min(5.0, self._idle_seconds / 2))
            limit = time.monotonic() - self._idle_seconds
            old = [worker for since, worker in self._idle if since <= limit]
            self._idle = [(since, worker) for since, worker in self._idle if since > limit]
            for worker in old:
                await worker.kill()


class _Worker:
    """One process. `usable` means that it waits for a task; a call that was cut off leaves it unusable."""

    def __init__(self) -> None:
        self.usable = False
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Raises TrainingError: no process could be started at all."""
        if self._process is not None:
            return
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1")}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "training.inline_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        try:
            async with asyncio.timeout(_START_SECONDS):
                await self._read()
        except TimeoutError:
            raise TrainingError(f"a worker process did not start within {_START_SECONDS:g} s") from None

    async def call(self, task: object) -> tuple[bool, object]:
        """Raises WorkerLost."""
        self.usable = False
        _, stdin, _ = self._pipes()
        body = frame(task)
        try:
            stdin.write(body)
            await stdin.drain()
        except ConnectionError as error:
            raise WorkerLost("the worker process is gone") from error
        result: tuple[bool, object] = await self._read()
        self.usable = True
        return result

    async def _read(self) -> tuple[bool, object]:
        process, _, stdout = self._pipes()
        try:
            head = await stdout.readexactly(HEADER.size)
            body = await stdout.readexactly(HEADER.unpack(head)[0])
        except asyncio.IncompleteReadError as error:
            code = await process.wait()
            raise WorkerLost(f"the worker process ended with {code}") from error
        return pickle.loads(body)  # type: ignore[no-any-return]  # noqa: S301 - from our own child

    def _pipes(self) -> tuple[asyncio.subprocess.Process, asyncio.StreamWriter, asyncio.StreamReader]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise WorkerLost("the worker process was stopped")
        return process, process.stdin, process.stdout

    async def kill(self) -> None:
        """May be called at any time, and again."""
        process, self._process, self.usable = self._process, None, False
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        # Without this the pipes are closed only when the loop's transport is collected.
        process._transport.close()  # type: ignore[attr-defined]
