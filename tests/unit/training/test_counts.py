"""Rows of each value: the same however the values come in batches, and only of what could be classes."""

from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from training.counts import ValueCounter
from training.target import MAX_CLASSES


def figures(kind: Any, *batches: list[Any], columns: int = 1) -> dict[str, Any]:
    types = {"integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_(), "datetime": pa.timestamp("us")}
    counter = ValueCounter(kind, columns)
    for batch in batches:
        counter.update(pa.array(batch, types.get(kind, pa.string())))
    return counter.figures()


@given(st.lists(st.lists(st.sampled_from("abcde"), max_size=9), min_size=1, max_size=6))
def test_any_batches_count_as_the_whole(batches: list[list[str]]) -> None:
    counts = Counter(value for batch in batches for value in batch)
    found = figures("category", *batches)
    if not counts:
        assert found == {}
        return
    smallest = min(counts.values())
    rarest = next(value for value, count in counts.items() if count == smallest)
    assert found == {"smallest": smallest, "rarest": rarest, "largest": max(counts.values())}


@pytest.mark.parametrize(
    ("kind", "values", "rarest"),
    [
        ("integer", [3, 5, 5], 3),
        ("number", [1.0, 0.0, 0.0], 1.0),
        ("boolean", [True, False, False], True),
        ("text", ["x" * 300, "y", "y"], "x" * 100),
    ],
)
def test_values_of_every_kind_that_may_be_a_label_are_counted(kind: str, values: list[Any], rarest: Any) -> None:
    assert figures(kind, values) == {"smallest": 1, "rarest": rarest, "largest": 2}


def test_what_cannot_be_a_class_is_not_counted() -> None:
    assert figures("number", [1.0, 2.0], [0.5]) == {}
    assert figures("number", [0.5], [1.0, 2.0]) == {}
    assert figures("datetime", [1, 2]) == {}
    assert figures("integer", []) == {}


def test_as_many_values_are_counted_as_there_may_be_classes() -> None:
    assert figures("integer", list(range(MAX_CLASSES)), [0])["largest"] == 2
    assert figures("integer", list(range(MAX_CLASSES)), [MAX_CLASSES], [0, 0]) == {}


def test_long_texts_of_many_columns_are_not_kept() -> None:
    texts = [f"{number}" * 900 for number in range(10, 40)]
    assert figures("text", texts)["largest"] == 1
    assert figures("text", texts, columns=5_000) == {}
