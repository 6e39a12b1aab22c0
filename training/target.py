"""Which task a target column makes, and whether it can be learned at all."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from parvada.schema import ColumnType, Task
from training.errors import BadData, BadRequest, nearest

TASKS = ("binary", "multiclass", "regression")
MAX_CLASSES = 1_000
MAX_INTEGER_CLASSES = 20
"""Integers with more distinct values than this are taken as quantities."""


class TargetCounter:
    """Counts the rows of each target value, up to a few more values than any classifier may have."""

    def __init__(self) -> None:
        self.rows = 0
        self.counts: Counter[Any] = Counter()

    def update(self, values: pa.Array) -> None:
        self.rows += len(values)
        if len(self.counts) > MAX_CLASSES:
            return
        counted = pc.value_counts(values)
        self.counts.update(
            dict(zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True))
        )


def resolve_task(target: str, kind: ColumnType, counter: TargetCounter, wanted: str) -> Task:
    """The task for target `target`, which is `wanted` where given.

    Raises:
        BadRequest: unknown task. BadData: the target is constant, or does not fit the task.
    """
    if wanted and wanted not in TASKS:
        raise BadRequest(
            "unknown_task",
            f"task {wanted!r} is not supported{nearest(wanted, TASKS)}; known are {', '.join(TASKS)}",
            {"allowed": list(TASKS)},
        )
    details = {"column": target}
    distinct = len(counter.counts)
    if kind == "datetime":
        raise BadData("target_type", f"the target {target!r} is a date: numbers or labels can be learned", details)
    if distinct < 2:
        value = next(iter(counter.counts), None)
        raise BadData(
            "constant_target",
            f"the target {target!r} has the one value {value!r} in all {counter.rows} rows: there is nothing to learn",
            details,
        )
    task = wanted or _inferred(kind, distinct)
    if task == "regression":
        if kind not in ("integer", "number"):
            message = f"the target {target!r} holds {kind} values: regression needs numbers"
            raise BadData("target_type", message, details)
        return "regression"
    return _checked_classes(target, kind, counter, task)


def _inferred(kind: ColumnType, distinct: int) -> str:
    if distinct == 2:
        return "binary"
    if kind == "number" or (kind == "integer" and distinct > MAX_INTEGER_CLASSES):
        return "regression"
    return "multiclass"


def _checked_classes(target: str, kind: ColumnType, counter: TargetCounter, task: str) -> Task:
    details = {"column": target}
    distinct = len(counter.counts)
    if kind == "number" and any(not float(value).is_integer() for value in counter.counts):
        raise BadData(
            "target_type", f"the target {target!r} holds fractions: {task} needs labels (use task=regression)", details
        )
    if distinct > MAX_CLASSES:
        raise BadData("too_many_classes", f"the target {target!r} has more than {MAX_CLASSES} classes", details)
    if counter.rows > 2 and max(counter.counts.values()) == 1:
        raise BadData(
            "too_many_classes",
            f"the target {target!r} has another value in each of its {counter.rows} rows: is it an identifier?",
            details,
        )
    if task == "binary" and distinct != 2:
        raise BadData("target_type", f"the target {target!r} has {distinct} classes: binary needs 2", details)
    return "binary" if task == "binary" else "multiclass"
