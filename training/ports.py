"""What the trainer needs of whatever runs its tasks: the `Executor` protocol, and the report to the agent; and what
whoever starts processes needs for it: the `Launcher` protocol."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from consensus.state import NodeId
from parvada.local import StoredBlob

if TYPE_CHECKING:  # workers, which start no processes, stay small
    import asyncio


class Capacity(msgspec.Struct, frozen=True):
    """What an executor may use: alive nodes, their CPUs, and the CPUs that are taken by running tasks."""

    nodes: int
    cpus: float
    cpus_used: float


class Task(msgspec.Struct, frozen=True):
    """One call of a function in a worker process, at one thread.

    The worker calls `training.worker.execute(function, payload, data_key, sources, emit)`, where `sources` are the
    Parquet files of the shared dataset (paths, or buffers with their bytes).
    """

    function: str
    """`module:name`, called as `name(payload, data, context)` with a `frames.Prepared` and a `context.TaskContext`."""
    payload: object
    """A frozen struct; crosses processes by pickle, on channels that belong to one epoch."""
    data_key: str
    seconds: float
    """Wall-clock limit of the running task (time in a queue does not count where the executor can tell).
    Beyond it the task is killed, native code too, and `run` raises TaskFailed."""
    label: str = ""
    """For logs: job, candidate and fold."""
    cpus: int = 1


class CurvePoint(msgspec.Struct, frozen=True):
    """How good a fit is after so many iterations: rounds of boosting, passes over the data, as its estimator has it."""

    iteration: int
    split: Literal["train", "validation"]
    metric: str
    value: float
    seconds: float
    """Since the fit began."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A model that a fit can go on from, stored at the node of its worker."""

    iteration: int
    blob: StoredBlob


class MoreTime(msgspec.Struct, frozen=True):
    """What the task does from here on is not what its limit is for: it has so many seconds from now."""

    seconds: float


Message = CurvePoint | Checkpoint
"""What a task tells while it runs."""
Word = Message | MoreTime
"""The last is for the executor, which sees to the limit."""
Emit = Callable[[Word], None]
Hear = Callable[[Message], None]


def to_nobody(message: Word) -> None:
    """An `Emit` for who does not listen."""


class Launcher(Protocol):
    """What starts processes that cannot outlive this one, and ends them (`node.processes.children.Supervisor`)."""

    async def launch(
        self, argv: Sequence[str], env: Mapping[str, str], name: str, *, pipes: bool = False
    ) -> "asyncio.subprocess.Process":
        """`env` is added to ours. With `pipes` its standard input and output are pipes to us. Raises OSError."""
        ...

    async def kill(self, process: "asyncio.subprocess.Process", grace: float) -> None:
        """SIGTERM, `grace` seconds, SIGKILL to it and to all that belongs to it."""
        ...

    def tail(self, name: str, lines: int) -> str:
        """The last lines of the log of that name."""
        ...


class Executor(Protocol):
    """Runs tasks in worker processes. Bounded by its caller, who keeps at most a few more than `capacity().cpus`
    tasks in flight."""

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Kill what still runs. Afterwards no process of the executor is left. May be called twice."""
        ...

    def capacity(self) -> Capacity:
        """A cheap snapshot that never blocks: may be some seconds old."""
        ...

    def allot(self, shares: Mapping[NodeId, int]) -> None:
        """From now on use no more CPUs of each node than its share; what runs beyond it may end. Before the first call
        all that the nodes have is used."""
        ...

    async def share(self, key: str, parts: Sequence[Path]) -> None:
        """Make a dataset (local Parquet files) available to workers on every node, once; a known key returns
        at once. An executor keeps a bounded number of datasets and may drop the one not used for longest."""
        ...

    async def run(self, task: Task, on_message: Hear | None = None) -> object:
        """Run one task; cancelling the call kills the task.

        `on_message` gets what the task tells before it ends, in order, thinned out to some 20 a second of a kind; all
        of it before this returns, and nothing after. It must not block.

        Raises:
            TaskFailed: the function raised, or the limit passed (`fit took longer than 300 s`).
            WorkerLost: its worker is gone, or its dataset is not shared any more: `share` and run again.
            EpochLost: the executor itself is gone (the Ray head): nothing will ever run again.
        """
        ...


class TrainerReport(msgspec.Struct, frozen=True):
    """What the trainer tells its agent each second."""

    epoch: int
    nodes: int
    cpus: float
    cpus_used: float
    mode: Literal["ray", "inline"]


class FitNews(msgspec.Struct, frozen=True):
    """What a running fit has told since the last report. `fold` is -1 of a refit."""

    job: str
    candidate: str
    fold: int
    points: tuple[CurvePoint, ...]


class LiveReport(msgspec.Struct, frozen=True):
    """What the trainer tells its agent of curves: every running fit that tells anything, also those without news."""

    epoch: int
    fits: tuple[FitNews, ...]
