"""Which task a target column makes, and whether it can be learned at all: at upload, and of a job's own target."""

from typing import NoReturn

import msgspec

from parvada.nearest import known_are
from parvada.schema import Column, Note, Scalar, Task
from training.errors import BadData, BadRequest

TASKS = ("binary", "multiclass", "regression")
MAX_CLASSES = 1_000
"""Values of a column are counted up to as many (`training.counts`)."""
MAX_INTEGER_CLASSES = 20
"""Integers with more distinct values than this are taken as quantities."""
ROWS_A_CLASS = 2
"""Integers with fewer rows a value than this, on average, are quantities too. Two whole numbers are always classes."""
_OTHERWISE = "choose another target"


class Learnable(msgspec.Struct, frozen=True):
    """What a target makes, and what had to be guessed for that."""

    task: Task
    notes: tuple[Note, ...] = ()


def resolve_target(column: Column, rows: int, wanted: str = "") -> Learnable:
    """The task that `column` makes as the target of `rows` rows that have a value; `wanted` where that is given.

    Raises:
        BadRequest: unknown task. BadData: the target cannot be learned, or does not fit the task.
    """
    if wanted and wanted not in TASKS:
        raise BadRequest(
            "unknown_task",
            f"task {wanted!r} is not supported{known_are(wanted, TASKS)}",
            {"allowed": list(TASKS)},
        )
    _check_learnable(column, rows)
    task = wanted or _inferred(column, rows)
    if task != "regression":
        _check_classes(column, rows, task)
        return Learnable("binary" if task == "binary" else "multiclass")
    if column.type not in ("integer", "number"):
        _refuse(column, "target_type", f"holds {column.type} values{_such_as(column)}: regression needs numbers")
    return Learnable("regression", () if wanted else _doubts(column, rows))


def _all_differ(column: Column, rows: int) -> bool:
    """Whether each of the rows has another value."""
    return rows > 2 and column.distinct >= rows


def _check_learnable(column: Column, rows: int) -> None:
    if column.type == "datetime":
        _refuse(column, "target_type", f"is a date{_such_as(column)}: numbers or labels can be learned, {_OTHERWISE}")
    if column.distinct == 0:
        _refuse(column, "no_target_values", f"has no value in any row: {_OTHERWISE}")
    if column.distinct == 1:
        only = f"has the one value {_example(column)!r} in all {rows} rows"
        _refuse(column, "constant_target", f"{only}: there is nothing to learn, {_OTHERWISE}")


def _inferred(column: Column, rows: int) -> Task:
    if column.type == "number":
        return "binary" if column.distinct == 2 and _whole(column) else "regression"
    if column.distinct == 2:
        return "binary"
    few_rows = column.distinct * ROWS_A_CLASS > rows
    if column.type == "integer" and (few_rows or column.distinct > MAX_INTEGER_CLASSES):
        return "regression"
    return "multiclass"


def _whole(column: Column) -> bool:
    """Whether the numbers of `column` are whole; of more than two values that is known only where they are counted."""
    ends = [end for end in (column.min, column.max) if isinstance(end, float | int)]
    return column.smallest is not None or (column.distinct == 2 and all(float(end).is_integer() for end in ends))


def _check_classes(column: Column, rows: int, task: str) -> None:
    if column.distinct > MAX_CLASSES:
        message = f"has more than {MAX_CLASSES} classes{_such_as(column)}: {_instead(column, rows)}"
        _refuse(column, "too_many_classes", message)
    if column.type == "number" and not _whole(column):
        _refuse(column, "target_type", f"holds fractions{_such_as(column)}: {task} needs labels (use task=regression)")
    if _all_differ(column, rows):
        message = f"has another value in each of its {rows} rows{_such_as(column)}: {_instead(column, rows)}"
        _refuse(column, "too_many_classes", message)
    if task == "binary" and column.distinct != 2:
        _refuse(column, "target_type", f"has {column.distinct} classes{_such_as(column)}: binary needs 2")


def _instead(column: Column, rows: int) -> str:
    """What to do where there are too many classes."""
    if column.type in ("integer", "number"):
        return "are they quantities? Then use task=regression"
    return f"is it an identifier? Then {_OTHERWISE}" if _all_differ(column, rows) else f"{_OTHERWISE}, or fewer classes"


def _doubts(column: Column, rows: int) -> tuple[Note, ...]:
    """What makes one wonder about a target that was taken as a quantity."""
    if _all_differ(column, rows) and column.type == "integer":
        message = f"has another whole number in each of its {rows} rows: if they name or count the rows, {_OTHERWISE}"
        return (_note(column, "unique_target", message, rows),)
    if column.distinct <= MAX_INTEGER_CLASSES and column.type == "integer":
        message = (
            f"has {column.distinct} whole numbers in {rows} rows: taken as quantities (use task=multiclass if not)"
        )
        return (_note(column, "target_quantities", message, column.distinct),)
    if column.distinct == 2:
        message = f"has the two values {column.min} and {column.max}: taken as quantities, as they are not whole"
        return (_note(column, "target_quantities", message, 2),)
    return ()


def _note(column: Column, code: str, message: str, count: int) -> Note:
    value = _example(column)
    return Note(
        code=code,
        message=f"the target {column.name!r} {message}",
        column=column.name,
        value=None if value is None else str(value),
        count=count,
    )


def _example(column: Column) -> Scalar:
    """A value of the column, as far as one is kept."""
    if column.rarest is not None or not (column.categories or column.min is not None):
        return column.rarest
    if column.categories:
        return column.categories[0]
    return int(column.min) if column.type == "integer" and isinstance(column.min, float) else column.min


def _such_as(column: Column) -> str:
    value = _example(column)
    return "" if value is None else f" such as {value!r}"


def _refuse(column: Column, code: str, message: str) -> NoReturn:
    raise BadData(code, f"the target {column.name!r} {message}", {"column": column.name})
