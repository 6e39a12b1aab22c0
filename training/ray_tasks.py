"""The driver's side of Ray, in the trainer process: the `Executor` that runs tasks on all nodes of the epoch."""

import asyncio
import importlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import ray
from ray import exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from consensus.state import NodeId
from training.errors import EpochLost, TaskFailed, TrainingError, WorkerLost
from training.inbox import pass_on
from training.outbox import Outbox
from training.places import Places
from training.ports import Capacity, Hear, Task, Word, to_nobody
from training.ray_node import keep_loopback

MAX_DATASETS = 16
"""Kept in the object store; beyond, the one not used for longest goes. Ray spills to disk what does not fit."""
EXECUTE = "training.worker:execute"
POLL_SECONDS = 1.0
"""Between two looks at which nodes are alive."""
STOP_SECONDS = 10.0
REASON_CHARACTERS = 300


class Started(msgspec.Struct, frozen=True):
    """First item of a running task's stream: its process exists and has the data."""

    node: str
    pid: int


class Told(msgspec.Struct, frozen=True):
    """What the function tells before it ends. Workers of the release before send none: their tasks tell nothing."""

    words: tuple[Word, ...]


class Done(msgspec.Struct, frozen=True):
    result: object


class Raised(msgspec.Struct, frozen=True):
    """The function raised: as text, because an exception may not survive pickling."""

    reason: str


def _nothing() -> None:
    """Stands for the `preload` of an `execute` that has none."""


def stream(
    execute: str, function: str, payload: object, data_key: str, *parts: object
) -> Iterator[Started | Told | Done | Raised]:
    """Runs in the worker. A stream, so that the driver knows when the task began: the limit counts from then.

    The function has a thread of its own, since only this one may yield what it tells meanwhile.
    """
    module, _, name = execute.partition(":")
    worker = importlib.import_module(module)
    # A new process imports scikit-learn for some seconds: that is not the fit's time.
    getattr(worker, "preload", _nothing)()
    yield Started(ray.get_runtime_context().get_node_id(), os.getpid())
    outbox, outcomes = Outbox(), list[Done | Raised]()

    def call() -> None:
        try:
            outcomes.append(Done(getattr(worker, name)(function, payload, data_key, parts, outbox.put)))
        except BaseException as error:  # the boundary to the driver: every failure of the function becomes its reason
            outcomes.append(Raised(f"{type(error).__name__}: {error}"[:REASON_CHARACTERS]))
        finally:
            outbox.close()

    threading.Thread(target=call, name="task", daemon=True).start()
    for batch in outbox.batches():
        yield Told(batch)
    yield from outcomes


# No retries by Ray: it would start a lost fold again behind the plan's back, under an old epoch's decision. The
# trainer knows the committed state and repeats what is still wanted.
_stream = ray.remote(num_returns="streaming", max_retries=0)(stream)


def translate(error: exceptions.RayError) -> TrainingError:
    """Ray's failures in our terms: what a node or process did is to be repeated, what the task did is not."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0][:REASON_CHARACTERS]
    if isinstance(error, exceptions.OutOfMemoryError):
        return TaskFailed(f"killed because its node ran out of memory: {text}")
    if isinstance(error, exceptions.RayTaskError):
        # Not from the function itself, see `stream`: its payload or result does not cross processes.
        return TaskFailed(f"{type(error.cause).__name__}: {error.cause}"[:REASON_CHARACTERS])
    return WorkerLost(text)


class RayExecutor:
    """Tasks over all nodes of one Ray cluster. When the head is lost Ray aborts this whole process (exit code 1,
    within 6 s): what called us must be a process that may die."""

    def __init__(self, address: str, execute: str = EXECUTE) -> None:
        """`execute`: what workers call with function, payload, data key and the files' bytes (uint8 arrays)."""
        self._address = address
        self._execute = execute
        self._nodes: dict[str, tuple[NodeId, int]] = {}
        self._shares: Mapping[NodeId, int] | None = None
        self._places = Places()
        self._cpus_used = 0.0
        self._datasets: OrderedDict[str, tuple[Any, ...]] = OrderedDict()
        self._sharing = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None
        self._connected = False

    async def start(self) -> None:
        """Connect to the head on this node.

        Raises:
            EpochLost: it does not answer, or refuses our certificate or token.
        """
        try:
            await asyncio.to_thread(self._connect)
            await self._look()
        except (exceptions.RayError, OSError, RuntimeError) as error:
            raise EpochLost(f"no Ray at {self._address}: {error}") from error
        self._connected = True
        self._watching = asyncio.create_task(self._watch(), name="ray.watch")

    async def stop(self) -> None:
        self._connected = False
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        self._datasets.clear()
        # Disconnecting ends the job: the nodes kill its workers, whatever they do.
        await asyncio.wait_for(asyncio.to_thread(ray.shutdown), STOP_SECONDS)

    def capacity(self) -> Capacity:
        return Capacity(len(self._nodes), float(self._places.total), self._cpus_used)

    def allot(self, shares: Mapping[NodeId, int]) -> None:
        if shares != self._shares:
            self._shares = dict(shares)
            self._offer()

    async def share(self, key: str, parts: Sequence[Path]) -> None:
        async with self._sharing:
            if key not in self._datasets:
                self._datasets[key] = await asyncio.to_thread(_put, tuple(parts))
            self._datasets.move_to_end(key)
            while len(self._datasets) > MAX_DATASETS:
                self._datasets.popitem(last=False)

    async def run(self, task: Task, on_message: Hear | None = None) -> object:
        """See `ports.Executor.run`."""
        self._check()
        if task.data_key not in self._datasets:
            raise WorkerLost(f"dataset {task.data_key} is not shared any more")
        self._datasets.move_to_end(task.data_key)
        parts = self._datasets[task.data_key]
        async with self._places.taken(task.cpus) as node:
            return await self._run_on(node, task, parts, on_message or to_nobody)

    async def _run_on(self, node: str, task: Task, parts: Sequence[Any], on_message: Hear) -> object:
        submitting = asyncio.create_task(asyncio.to_thread(self._submit, node, task, parts), name="ray.submit")
        try:
            return await self._follow(task, await asyncio.shield(submitting), on_message)
        except exceptions.RayError as error:
            self._check()
            raise translate(error) from error
        except BaseException:
            # Out of time or cancelled: kill the process, as native code hears no exception.
            await asyncio.to_thread(ray.cancel, await submitting, force=True)
            raise

    async def _follow(self, task: Task, items: AsyncIterator[Any], on_message: Hear) -> object:
        await _next(items)
        self._cpus_used += task.cpus
        try:
            async with asyncio.timeout(task.seconds) as limit:
                outcome = await _outcome(items, on_message, limit)
        except TimeoutError:
            raise TaskFailed(f"fit took longer than {task.seconds:g} s") from None
        finally:
            self._cpus_used -= task.cpus
        if isinstance(outcome, Raised):
            raise TaskFailed(outcome.reason)
        return outcome.result

    def _submit(self, node: str, task: Task, parts: Sequence[Any]) -> Any:
        name = task.label or task.function
        # Soft: if the node is dead before we know of it, the task runs elsewhere rather than fail.
        there = NodeAffinitySchedulingStrategy(node, soft=True)
        remote = _stream.options(name=name, num_cpus=task.cpus, scheduling_strategy=there)
        return remote.remote(self._execute, task.function, task.payload, task.data_key, *parts)

    def _check(self) -> None:
        if not self._connected:
            raise EpochLost(f"not connected to Ray at {self._address}")
        if self._watching is not None and self._watching.done():
            raise EpochLost(f"lost Ray at {self._address}") from self._watching.exception()

    def _connect(self) -> None:
        keep_loopback()
        ray.init(
            address=self._address,
            _node_ip_address=self._address.rpartition(":")[0],
            log_to_driver=False,
            logging_level=logging.WARNING,
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._look()

    async def _look(self) -> None:
        self._nodes = {
            node["NodeID"]: (NodeId(node["NodeName"]), int(node["Resources"].get("CPU", 0)))
            for node in await asyncio.to_thread(ray.nodes)
            if node["Alive"]
        }
        self._offer()

    def _offer(self) -> None:
        shares = self._shares
        self._places.offer(
            {
                node: cpus if shares is None else min(cpus, shares.get(name, 0))
                for node, (name, cpus) in self._nodes.items()
            }
        )


async def _next(items: AsyncIterator[Any]) -> Any:
    return await (await anext(items))


async def _outcome(items: AsyncIterator[Any], on_message: Hear, limit: asyncio.Timeout) -> Any:
    while isinstance(item := await _next(items), Told):
        pass_on(item.words, on_message, limit)
    return item


def _put(parts: Sequence[Path]) -> tuple[Any, ...]:
    """One object a file, copied from the page cache into shared memory; workers see it without another copy."""
    return tuple(ray.put(np.asarray(np.memmap(part, dtype=np.uint8, mode="r"))) for part in parts)
