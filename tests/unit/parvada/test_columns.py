"""The one conversion from values to frames: the same features for training and serving, or the place of the fault."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, strategies as st

from parvada.columns import ColumnError, layout, to_frame
from parvada.schema import ColumnType, InputField


def field(name: str, kind: ColumnType, *, required: bool = False) -> InputField:
    return InputField(name=name, type=kind, required=required)


ALL = [
    field("n", "number"),
    field("i", "integer"),
    field("b", "boolean"),
    field("c", "category"),
    field("t", "text"),
    field("d", "datetime"),
]


def test_every_type_has_its_form() -> None:
    frame = to_frame(
        {
            "n": [1.5, None],
            "i": [3, None],
            "b": [True, None],
            "c": ["x", None],
            "t": ["some words", None],
            "d": ["2024-05-01T12:00:00+02:00", None],
        },
        ALL,
    )
    assert list(frame.columns) == [column.name for column in layout(ALL)]
    day = 19844 + 10 / 24
    assert frame.iloc[0].tolist() == [1.5, 3.0, 1.0, "x", "some words", pytest.approx(day), 5.0, 1.0, 2.0, 10.0]
    missing = frame.iloc[1]
    assert missing[["c", "t"]].tolist() == ["", ""]
    assert missing.drop(["c", "t"]).isna().all()
    assert {str(frame[name].dtype) for name in ("c", "t")} == {"object"}


def test_absent_optional_column_is_missing_and_unknown_ones_are_left_out() -> None:
    frame = to_frame({"n": [1, 2], "other": ["p", "q"]}, [field("n", "number", required=True), field("c", "category")])
    assert frame.to_dict("list") == {"n": [1.0, 2.0], "c": ["", ""]}


@pytest.mark.parametrize(
    ("kind", "values", "row", "says"),
    [
        ("number", [1, "x"], 2, "'x' is not a number"),
        ("number", [True], 1, "True is not a number"),
        ("integer", [10**400], 1, "too large"),
        ("number", [float("inf")], 1, "not finite"),
        ("number", [1.0, None], 2, "a value is required"),
        ("boolean", [True, 1], 2, "1 is neither true nor false"),
        ("boolean", ["maybe"], 1, "neither true nor false"),
        ("category", ["a", 3], 2, "3 is not a string"),
        ("category", [None], 1, "a value is required"),
        ("text", [["a"]], 1, "is not a string"),
        ("datetime", ["2024-01-01", "yesterday"], 2, "'yesterday' is not a date"),
        ("datetime", [1700000000], 1, "is not a date"),
    ],
)
def test_wrong_value_is_named_with_its_row(kind: ColumnType, values: list[object], row: int, says: str) -> None:
    with pytest.raises(ColumnError, match=says) as caught:
        to_frame({"col": values}, [field("col", kind, required=True)])
    assert (caught.value.column, caught.value.row) == ("col", row)


def test_missing_required_column_and_uneven_columns() -> None:
    fields = [field("a", "number", required=True), field("b", "number")]
    with pytest.raises(ColumnError, match="column 'a': the column is missing"):
        to_frame({"b": [1]}, fields)
    with pytest.raises(ColumnError, match="column 'b': has 1 values where other columns have 2"):
        to_frame({"a": [1, 2], "b": [1]}, fields)


def test_parts_of_a_date_never_take_the_name_of_another_column() -> None:
    fields = [field("d", "datetime"), field("d#month", "number")]
    names = [column.name for column in layout(fields)]
    assert len(set(names)) == len(names) == 6


@given(st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=20))
def test_cells_of_a_csv_json_values_and_arrays_give_the_same(values: list[float | None]) -> None:
    fields = [field("n", "number")]
    cells = ["" if value is None else repr(value) for value in values]
    as_json = to_frame({"n": values}, fields)
    pd.testing.assert_frame_equal(as_json, to_frame({"n": cells}, fields, text=True))
    array = np.array([np.nan if value is None else value for value in values])
    pd.testing.assert_frame_equal(as_json, to_frame({"n": array}, fields))


def test_a_model_made_before_the_rule_reads_as_it_did() -> None:
    """Its fields have no reading: a CSV cell is trimmed, and NA missing; a JSON string is what it is."""
    fields = [field("c", "category"), field("n", "number"), field("d", "datetime")]
    cells = {"c": [" red ", "NA", "?"], "n": ["007", " 1.5 ", "NA"], "d": ["2024-01-01", "", "NA"]}
    frame = to_frame(cells, fields, text=True)
    assert frame["c"].tolist() == ["red", "", ""]
    assert frame["n"].tolist()[:2] == [7.0, 1.5]
    assert frame["n"].isna().tolist() == [False, False, True]
    assert frame["d"].isna().tolist() == [False, True, True]
    as_json = to_frame({"c": [" red ", "NA", None], "n": [7, 1.5, None], "d": ["2024-01-01", None, None]}, fields)
    assert as_json["c"].tolist() == [" red ", "NA", ""]
    with pytest.raises(ColumnError, match="'1,5' is not a number"):
        to_frame({"n": ["1,5"]}, [field("n", "number")], text=True)
