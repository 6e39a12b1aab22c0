"""Which rows are held out and which fold tests which: a pure function of the target, the groups and the seed."""

import warnings
from typing import Any

import numpy as np

from training.tasks import SplitPlan

Array = Any


def holdout_split(y: Array, groups: Array | None, plan: SplitPlan, *, classify: bool) -> tuple[Array, Array]:
    """Row numbers (training, held out), each sorted. Classes keep their shares; a group is never torn apart."""
    rows = len(y)
    rng = np.random.default_rng([plan.seed, 0])
    if plan.holdout <= 0:
        return np.arange(rows), np.arange(0)
    if groups is not None:
        held = _whole_groups(groups, plan.holdout, rng)
    elif classify:
        labels = np.unique(y, return_inverse=True)[1]
        parts = [rng.permutation(np.flatnonzero(labels == label)) for label in range(labels.max() + 1)]
        held = np.concatenate([part[: held_rows(len(part), plan.holdout)] for part in parts])
    else:
        held = rng.permutation(rows)[: held_rows(rows, plan.holdout)]
    held = np.sort(held)
    return np.setdiff1d(np.arange(rows), held, assume_unique=True), held


def held_rows(rows: int, share: float) -> int:
    """How many of `rows` rows are held out."""
    return int(rows * share + 0.5) if rows > 1 else 0


def held_groups(groups: int, share: float) -> int:
    """How many of `groups` groups are held out at most; two always stay for the folds."""
    return max(0, min(int(groups * share + 0.5), groups - 2))


def _whole_groups(groups: Array, share: float, rng: np.random.Generator) -> Array:
    names, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    order = rng.permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    # As many groups as make up the share of rows, but no more than that share of the groups: so the number that is
    # left for folds is known from the number of groups alone (`held_groups`).
    chosen = order[: min(int((before < len(groups) * share).sum()), held_groups(len(names), share))]
    return np.flatnonzero(np.isin(inverse, chosen))


def fold_split(y: Array, groups: Array | None, plan: SplitPlan, fold: int, *, classify: bool) -> tuple[Array, Array]:
    """Row numbers (training, test) of fold `fold`, 0 <= fold < folds * repeats, among the rows of `y`."""
    from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

    repeat, index = divmod(fold, plan.folds)
    state = int(np.random.default_rng([plan.seed, 1, repeat]).integers(2**31 - 1))
    options = {"n_splits": plan.folds, "shuffle": True, "random_state": state}
    most = np.unique(y, return_counts=True)[1].max()
    if classify and groups is None and most < plan.folds <= len(y):
        return _spread(y, plan.folds, index, state)
    stratify = classify and most >= plan.folds
    if groups is not None:
        splitter = StratifiedGroupKFold(**options) if stratify else GroupKFold(**options)
    else:
        splitter = StratifiedKFold(**options) if stratify else KFold(**options)
    with warnings.catch_warnings():
        # A class with fewer rows than folds: said once, in the notes of the job's unit.
        warnings.simplefilter("ignore", UserWarning)
        for number, (train, test) in enumerate(splitter.split(np.zeros(len(y)), y, groups)):
            if number == index:
                return train, test
    raise ValueError(f"there is no fold {fold}")


def _spread(y: Array, folds: int, index: int, state: int) -> tuple[Array, Array]:
    """For classes that all have fewer rows than there are folds: no two rows of a class are tested together."""
    shuffled = np.random.default_rng(state).permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    test = np.sort(by_class[index::folds])
    return np.setdiff1d(np.arange(len(y)), test, assume_unique=True), test
