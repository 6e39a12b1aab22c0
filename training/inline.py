"""The executor without Ray: a pool of worker processes of this machine."""

import asyncio
import contextlib
import os
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from consensus.state import NodeId
from training.errors import TaskFailed, WorkerLost
from training.places import Places
from training.pool import Pool, PoolSettings
from training.pool_worker import Raised
from training.ports import Capacity, Hear, Task

_MAX_DATASETS = 16
_NOBODY = NodeId("")
_REASON_CHARACTERS = 500
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS", "ARROW_NUM_THREADS")
"""One task, one thread: what runs in parallel are tasks."""


class InlineExecutor:
    """At most `workers` tasks at a time, and no more than this node's share; each in its own process, which is kept for
    the next one.

    `idle_seconds`: after so long without work a process is closed, so that an idle node stays small.
    """

    def __init__(self, workers: int, idle_seconds: float = 60.0, node: NodeId = _NOBODY) -> None:
        self._workers = workers
        self._node = node
        self._places = Places()
        self._places.offer({node: workers})
        settings = PoolSettings(
            name="inline",
            workers=workers,
            waiting=workers,  # who has a place has a process, or will in a moment
            seconds=0.0,  # each task has its own
            idle_seconds=idle_seconds,
            environment=dict.fromkeys(_THREADS, "1"),
            preload="training.worker:preload",
        )
        self._pool = Pool(PlainChildren(), settings)
        self._parts: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._closer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._closer = asyncio.create_task(self._pool.close_idle(), name="inline.close-idle")

    async def stop(self) -> None:
        if self._closer is not None:
            self._closer.cancel()
            await asyncio.wait([self._closer], timeout=5)
        await self._pool.stop()

    def capacity(self) -> Capacity:
        return Capacity(nodes=1, cpus=float(self._places.total), cpus_used=float(self._pool.running))

    def allot(self, shares: Mapping[NodeId, int]) -> None:
        self._places.offer({self._node: min(self._workers, shares.get(self._node, self._workers))})

    async def share(self, key: str, parts: Sequence[Path]) -> None:
        self._parts[key] = tuple(str(part) for part in parts)
        self._parts.move_to_end(key)
        while len(self._parts) > _MAX_DATASETS:
            self._parts.popitem(last=False)

    async def run(self, task: Task, on_message: Hear | None = None) -> object:
        """See `ports.Executor.run`."""
        async with self._places.taken(task.cpus):
            sources = self._parts.get(task.data_key)
            if sources is None:
                raise WorkerLost(f"dataset {task.data_key} is not shared")
            self._parts.move_to_end(task.data_key)
            args = (task.function, task.payload, task.data_key, sources)
            answer = await self._pool.call("training.worker:execute", args, task.seconds, "fit", on_message)
        if isinstance(answer, Raised):
            raise TaskFailed(answer.text[:_REASON_CHARACTERS])
        return answer.value


class PlainChildren:
    """A `Launcher` of processes that log where this one does."""

    async def launch(
        self, argv: Sequence[str], env: Mapping[str, str], name: str, *, pipes: bool = False
    ) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL
        return await asyncio.create_subprocess_exec(*argv, stdin=pipe, stdout=pipe, env={**os.environ, **env})

    async def kill(self, process: asyncio.subprocess.Process, grace: float) -> None:
        """SIGTERM, `grace` seconds, SIGKILL. May be called again."""
        if grace > 0 and process.returncode is None:
            process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await process.wait()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        # Without this the pipes are closed only when the loop's transport is collected.
        process._transport.close()  # type: ignore[attr-defined]

    def tail(self, name: str, lines: int) -> str:
        return ""
