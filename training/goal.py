"""What one dataset of a job has to learn, how its classes are spread, and how many folds that allows."""

import msgspec

from consensus.state import DatasetVersion
from parvada.schema import Column, CvSpec, DatasetDetail, Scalar, Task
from training.errors import BadData
from training.folds import held_groups, held_rows
from training.metrics import Spread
from training.notes import NOT_A_VALUE
from training.target import Learnable, resolve_target


class Goal(msgspec.Struct, frozen=True):
    """`rows` have a value of the target. `smallest`, `rarest` and `largest` are its column's, where it has classes."""

    target: str
    task: str
    rows: int
    smallest: int | None = None
    rarest: Scalar = None
    largest: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> Spread | None:
        return Spread(self.smallest, self.largest) if self.smallest and self.largest else None


def goal_of(column: Column, dataset: DatasetVersion, detail: DatasetDetail, field: str) -> Goal:
    """The dataset's own target was judged when it was uploaded; another one is judged here, by the same rule."""
    rows = dataset.rows - column.missing
    own = column.name == dataset.target
    found = Learnable(msgspec.convert(dataset.task, Task)) if own else _judged(column, rows, detail, field)
    notes = tuple(note.message for note in found.notes)
    if found.task == "regression":
        return Goal(column.name, found.task, rows, notes=notes)
    smallest = detail.smallest_class if own and column.smallest is None else column.smallest
    return Goal(column.name, found.task, rows, smallest, column.rarest, column.largest, notes)


def _judged(column: Column, rows: int, detail: DatasetDetail, field: str) -> Learnable:
    for note in detail.notes:
        if (note.column, note.code) == (column.name, NOT_A_VALUE):  # of a feature that may be
            message = f"{field}: {note.message}; a target must have none of these"
            raise BadData("target_value", message, {"field": field, "value": column.name, "row": note.line})
    try:
        return resolve_target(column, rows)
    except BadData as error:
        details = {**error.details, "field": field, "value": column.name}
        raise BadData(error.code, f"{field}: {error}", details) from error


def fit_folds(cv: CvSpec, dataset: str, goal: Goal, groups: int | None) -> tuple[int, list[str]]:
    """The number of folds that the data allow, and notes where that is fewer than asked for or a class is rarer."""
    share = cv.holdout
    allowed = (goal.rows - held_rows(goal.rows, share)) // 2
    reason = f"the dataset has {goal.rows} rows"
    if groups is not None and groups - held_groups(groups, share) < allowed:
        allowed = groups - held_groups(groups, share)
        reason = f"there are {groups} groups"
    if allowed < 2:
        raise BadData("too_few_rows", f"dataset {dataset}: {reason}, too few for cross-validation")
    folds = min(allowed, cv.folds)
    notes = [f"folds reduced from {cv.folds} to {folds}: {reason}"] if folds < cv.folds else []
    return folds, notes + _rare_class(dataset, goal, folds, share)


def _rare_class(dataset: str, goal: Goal, folds: int, share: float) -> list[str]:
    """A note where a class has fewer rows than there are folds. Raises BadData: one of two classes cannot be tested."""
    if goal.smallest is None:
        return []
    left = goal.smallest - held_rows(goal.smallest, share)
    name = "the rarest class" if goal.rarest is None else f"class {goal.rarest!r}"
    has = f"{name} of {goal.target!r} has {_rows(goal.smallest)}"
    if goal.task == "binary" and left < 2:
        needed = "of two classes each needs 2 rows that are not held out, one to fit and one to test"
        details = {"column": goal.target, "value": goal.rarest}
        raise BadData("too_few_rows", f"dataset {dataset}: {has}: {needed}", details)
    if left >= folds:
        return []
    held = f", {left} of them not held out" if left < goal.smallest else ""
    return [f"{has}{held}, fewer than the {folds} folds: each is scored by the classes that it has"]


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
