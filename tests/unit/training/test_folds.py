"""Splits: a function of data and seed, nothing lost, nothing leaked."""

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from training.folds import fold_split, held_groups, holdout_split
from training.tasks import SplitPlan


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**31), st.integers(20, 120), st.integers(2, 5), st.sampled_from([0.0, 0.1, 0.3]), st.booleans())
def test_every_training_row_is_tested_once_and_the_holdout_never(
    seed: int, rows: int, folds: int, holdout: float, grouped: bool
) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, rows)
    groups = rng.integers(0, 12, rows) if grouped else None
    plan = SplitPlan(folds, 2, holdout, seed)
    if groups is not None and len(np.unique(groups)) - held_groups(len(np.unique(groups)), holdout) < folds:
        return
    train, held = holdout_split(y, groups, plan, classify=True)
    assert sorted([*train, *held]) == list(range(rows))
    inner = groups[train] if groups is not None else None
    if groups is not None:
        assert not set(groups[train]) & set(groups[held])
    for repeat in range(2):
        tested: list[int] = []
        for fold in range(folds):
            fit, test = fold_split(y[train], inner, plan, repeat * folds + fold, classify=True)
            assert not set(fit) & set(test)
            if inner is not None:
                assert not set(inner[fit]) & set(inner[test])
            tested += list(test)
        assert sorted(tested) == list(range(len(train)))


def test_holdout_keeps_the_shares_of_the_classes_and_rare_rows_for_training() -> None:
    y = np.array(["a"] * 80 + ["b"] * 20 + ["c"])
    train, held = holdout_split(y, None, SplitPlan(5, 1, 0.2, 1), classify=True)
    assert dict(zip(*np.unique(y[held], return_counts=True), strict=True)) == {"a": 16, "b": 4}
    assert "c" in y[train]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.lists(st.integers(1, 12), min_size=2, max_size=9), st.integers(2, 8))
def test_a_class_with_fewer_rows_than_folds_is_spread_over_them(seed: int, sizes: list[int], folds: int) -> None:
    y = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    if len(y) < 2 * folds:
        return
    plan = SplitPlan(folds, 1, 0.0, seed)
    tests = [fold_split(y, None, plan, fold, classify=True)[1] for fold in range(folds)]
    assert sorted(row for test in tests for row in test) == list(range(len(y)))
    for label, size in enumerate(sizes):
        times = [int((y[test] == label).sum()) for test in tests]
        assert max(times) <= max(1, -(-size // folds)), f"class {label} of {size} rows is tested {times}"


def test_another_repeat_or_seed_is_another_split() -> None:
    y = np.arange(60) % 2
    plan = SplitPlan(3, 2, 0.0, 1)
    first = fold_split(y, None, plan, 0, classify=True)[1].tolist()
    assert first == fold_split(y, None, plan, 0, classify=True)[1].tolist()
    assert first != fold_split(y, None, plan, 3, classify=True)[1].tolist()
    assert first != fold_split(y, None, SplitPlan(3, 2, 0.0, 2), 0, classify=True)[1].tolist()
    with pytest.raises(ValueError, match="greater than the number of samples"):
        fold_split(y[:2], None, plan, 0, classify=False)
