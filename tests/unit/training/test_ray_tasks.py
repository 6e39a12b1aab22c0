"""What a failure inside Ray means for the trainer: run again, or record that the task failed."""

from typing import Any

import pytest
import ray.exceptions

from training.errors import TaskFailed, WorkerLost
from training.ray_tasks import translate

exceptions: Any = ray.exceptions  # untyped constructors


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (exceptions.NodeDiedError("the node died"), WorkerLost),
        (exceptions.WorkerCrashedError(), WorkerLost),
        (exceptions.LocalRayletDiedError(), WorkerLost),
        (exceptions.ObjectLostError("ab", None, ""), WorkerLost),
        (exceptions.OutOfMemoryError("too much"), TaskFailed),
        (exceptions.RayTaskError("stream", "a traceback", TypeError("cannot pickle")), TaskFailed),
    ],
)
def test_lost_or_failed(error: Any, expected: type) -> None:
    assert type(translate(error)) is expected


def test_reasons_are_one_short_line() -> None:
    reason = str(translate(exceptions.NodeDiedError("the node is dead\n" + "details " * 500)))
    assert reason == "the node is dead"
    cause = TaskFailed(str(translate(exceptions.RayTaskError("stream", "a traceback", ValueError("x" * 5000)))))
    assert cause.reason.startswith("ValueError: xxx")
    assert len(cause.reason) <= 300
