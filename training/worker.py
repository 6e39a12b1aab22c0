"""The one function that executors call in a worker process: prepares the data and runs a task at one thread, within
its memory."""

import importlib
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.blob_door import own_door
from training.context import TaskContext
from training.ports import Emit, to_nobody


def execute(function: str, payload: Any, data_key: str, sources: Sequence[Any], emit: Emit = to_nobody) -> object:
    """Call `function` ("module:name" of this package) with the payload, its prepared dataset and a `TaskContext`.

    `payload` has the attributes `view` (`training.tasks.DataView`) and `memory_mb`.
    `sources`: see `training.frames.prepare`.
    """
    from threadpoolctl import threadpool_limits

    from training.frames import prepare

    module, _, name = function.partition(":")
    if not module.startswith("training."):
        raise ValueError(f"{function!r} is not a task of this package")
    # Limits native thread pools that were loaded before the environment could (OMP_NUM_THREADS and the like).
    with threadpool_limits(limits=1):
        data = prepare(data_key, sources, payload.view)
        run = getattr(importlib.import_module(module), name)
        with _memory_limit(payload.memory_mb):
            return run(payload, data, TaskContext(emit, own_door()))


def preload() -> None:
    """Import what every task needs, so that no fit's clock runs for it: about two seconds of a CPU."""
    for module in ("pandas", "pyarrow.compute", "pyarrow.parquet", "threadpoolctl", "training.trial"):
        importlib.import_module(module)
    from training.catalog import estimators

    estimators("classifier")
    estimators("regressor")


@contextmanager
def _memory_limit(megabytes: int) -> Iterator[None]:
    """Private memory may grow by so much: then Python and NumPy raise MemoryError, and only this candidate fails."""
    if not megabytes:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = _data_bytes() + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _data_bytes() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 0
