"""What a target makes: the same task or the same refusal whether it is the dataset's own or a job's."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings, strategies as st

from consensus.state import DatasetVersion, Json
from parvada.schema import Column, DatasetDetail, JobSpec, UnitDetail
from tests.unit.training.data import dataset
from training.errors import BadData
from training.spec import resolve_job
from training.target import resolve_target

Values = Sequence[Any]


def version_of(folder: Path, values: Values, target: str, task: str = "") -> DatasetVersion:
    """The column `v` between a feature and the usual target `y`."""
    rows = len(values)
    table = pd.DataFrame(
        {"x": np.arange(rows) / 7, "v": values, "y": ["one", "other"] * (rows // 2) + ["one"] * (rows % 2)}
    )
    return dataset(folder, table, target=target, task=task)[0]


def outcome(version: DatasetVersion, *, other: bool) -> dict[str, Any]:
    """What a job on the target `v` becomes."""
    asked = {"name": "table", "target": "v"} if other else "table"
    spec = msgspec.convert({"datasets": [asked], "models": "default"}, JobSpec)
    job = resolve_job(spec, [version])
    unit, detail = job.units[0], msgspec.json.decode(job.units[0].detail, type=UnitDetail)
    return {"task": unit.task, "metric": unit.metric, "folds": detail.folds, "notes": detail.notes}


def both(values: Values) -> tuple[dict[str, Any], dict[str, Any]]:
    """What comes of `values` as the dataset's own target, and as a job's."""
    found: list[dict[str, Any]] = []
    for target in ("v", "y"):
        with tempfile.TemporaryDirectory() as folder:
            try:
                found.append(outcome(version_of(Path(folder), values, target), other=target == "y"))
            except BadData as error:
                found.append({"code": error.code, "says": error.message.removeprefix("datasets[0].target: ")})
    return found[0], found[1]


PROSE = [f"the {number}th remark of somebody who had much to say about it" for number in range(60)]
NONE = [None] * 52
CASES: list[tuple[str, Values, dict[str, Any]]] = [
    ("labels written as 0.0 and 1.0", [0.0, 1.0, 1.0] * 20, {"task": "binary", "metric": "roc_auc", "folds": 5}),
    ("two other whole numbers", [-5.0, 3.0] * 20, {"task": "binary"}),
    ("two fractions", [0.5, 1.5] * 20, {"task": "regression"}),
    ("few fractions", [0.25, 0.5, 1.0] * 20, {"task": "regression"}),
    ("few whole numbers with a point", [1.0, 2.0, 3.0] * 20, {"task": "regression"}),
    ("integers", [1, 2, 3] * 20, {"task": "multiclass", "metric": "accuracy"}),
    ("many integers", list(range(25)) * 3, {"task": "regression"}),
    ("15 prices", [199 + 13 * number for number in range(15)], {"task": "regression", "folds": 5}),
    ("booleans", [True, False, False] * 20, {"task": "binary"}),
    ("labels", ["a", "b", "c"] * 20, {"task": "multiclass"}),
    ("96, 2 and 2", ["a"] * 96 + ["b"] * 2 + ["c"] * 2, {"task": "multiclass", "metric": "balanced_accuracy"}),
    ("long labels", PROSE[:2] * 30, {"task": "binary"}),
    ("8 values in 60 rows", [*NONE, 0, 0, 0, 0, 1, 1, 1, 1], {"task": "binary", "metric": "roc_auc", "folds": 3}),
    ("3 values in 60 rows", [*NONE, None, None, None, None, None, 0, 1, 1], {"code": "too_few_rows"}),
    ("one of 60", ["yes"] + ["no"] * 59, {"code": "too_few_rows"}),
    ("identifiers", [f"id-{number}" for number in range(60)], {"code": "too_many_classes"}),
    ("prose", PROSE, {"code": "too_many_classes"}),
    ("a constant", ["x"] * 60, {"code": "constant_target"}),
    ("a constant number", [2.5] * 60, {"code": "constant_target"}),
    ("dates", [f"2024-01-{number + 1:02}" for number in range(30)], {"code": "target_type"}),
]  # fmt: skip


@pytest.mark.parametrize(("values", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_target_makes_the_same_at_upload_and_in_a_job(values: Values, expected: dict[str, Any]) -> None:
    own, other = both(values)
    assert own == other
    assert {key: own[key] for key in expected} == expected


POOLS: list[Values] = [
    [0.0, 1.0], [0, 1], [0.5, 1.5], [0.5, 1.0, 2.0], [1, 2, 3], list(range(12)), list(range(40)), [7], ["a"],
    ["a", "b"],
    [f"c{number}" for number in range(9)], [f"c{number}" for number in range(80)], PROSE, [True, False], PROSE[:3],
    [number / 8 for number in range(50)], [1.0, 2.0, 3.0, 4.0],
]  # fmt: skip


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_any_column_makes_the_same_at_upload_and_in_a_job(data: st.DataObject) -> None:
    pool = data.draw(st.sampled_from(POOLS))
    unique = data.draw(st.booleans())
    size = data.draw(st.integers(4, 40))
    least = min(size, len(pool)) if unique else size
    present = data.draw(st.lists(st.sampled_from(pool), min_size=least, max_size=size, unique=unique))
    missing = data.draw(st.integers(0, 30)) if isinstance(pool[0], str) else 0
    assume(len(present) > 1)
    own, other = both([*present, *[None] * missing])
    assert own == other


# ---------------------------------------------------------------- what is said
@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([f"id-{n}" for n in range(9)], "has another value in each of its 9 rows such as 'id-0': is it an identifier?"),
        (["x"] * 9, "has the one value 'x' in all 9 rows: there is nothing to learn, choose another target"),
        ([2.5] * 9, "has the one value 2.5 in all 9 rows"),
        ([7] * 9, "has the one value 7 in all 9 rows"),
    ],
)
def test_a_refusal_names_the_column_a_value_and_what_to_do(values: Values, says: str) -> None:
    own, other = both(values)
    assert own["says"].startswith("the target 'v' ")
    assert says in own["says"]
    assert own == other


def test_a_job_names_its_field_too(tmp_path: Path) -> None:
    with pytest.raises(BadData, match=r"^datasets\[0\].target: the target 'v' has the one value") as caught:
        outcome(version_of(tmp_path, ["x"] * 9, "y"), other=True)
    assert caught.value.details == {"column": "v", "field": "datasets[0].target", "value": "v"}


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (
            [199 + 13 * number for number in range(15)],
            "has another whole number in each of its 15 rows: if they name or",
        ),
        (
            [1, 2, 3, 4, 5, 6, 7, 8, 8],
            "has 8 whole numbers in 9 rows: taken as quantities (use task=multiclass if not)",
        ),
        ([0.5, 1.5] * 9, "has the two values 0.5 and 1.5: taken as quantities"),
    ],
)
def test_what_is_odd_of_a_quantity_is_noted(tmp_path: Path, values: Values, note: str) -> None:
    own, other = both(values)
    assert own["notes"][0].startswith(f"the target 'v' {note}")
    assert own == other
    detail = msgspec.json.decode(version_of(tmp_path, values, "v").detail, type=DatasetDetail)
    assert [(told.column, told.code in ("unique_target", "target_quantities")) for told in detail.notes] == [
        ("v", True)
    ]


def test_a_task_that_was_asked_for_is_not_doubted_but_must_be_possible(tmp_path: Path) -> None:
    prices = [199 + 13 * number for number in range(15)]
    detail = msgspec.json.decode(version_of(tmp_path, prices, "v", "regression").detail, type=DatasetDetail)
    assert detail.notes == []
    with pytest.raises(BadData, match="another value in each of its 15 rows such as 199: are they quantities"):
        version_of(tmp_path, prices, "v", "multiclass")
    with pytest.raises(BadData, match=r"holds fractions such as 0.5: binary needs labels \(use task=regression\)"):
        version_of(tmp_path, [0.5, 1.5] * 9, "v", "binary")
    with pytest.raises(BadData, match="holds category values such as 'a': regression needs numbers"):
        version_of(tmp_path, ["a", "b"] * 9, "v", "regression")


# ---------------------------------------------------------------- data sets made before the classes were counted
@pytest.mark.parametrize(
    ("values", "task"),
    [
        ([0.0, 1.0] * 20, "binary"),
        ([0.5, 1.5] * 20, "regression"),
        ([1, 2, 3] * 20, "multiclass"),
        (["a", "b"] * 9, "binary"),
    ],
)
def test_an_old_data_set_makes_the_same_task(tmp_path: Path, values: Values, task: str) -> None:
    version = version_of(tmp_path, values, "y")
    detail = msgspec.json.decode(version.detail, type=DatasetDetail)
    columns = [msgspec.structs.replace(c, smallest=None, rarest=None, largest=None) for c in detail.columns]
    text = Json(msgspec.json.encode(msgspec.structs.replace(detail, columns=columns)))
    assert outcome(msgspec.structs.replace(version, detail=text), other=True)["task"] == task


def test_a_column_without_counts_is_an_identifier_by_its_distinct_values() -> None:
    column = Column(name="id", type="category", nullable=False, missing=0, distinct=60, categories=["a"])
    with pytest.raises(BadData, match="such as 'a': is it an identifier"):
        resolve_target(column, 60)
