"""Whatever file a table came from: asked for its own rows in any format, a model sees what it was trained on."""

import csv
import datetime as dt
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given, settings, strategies as st

from tests.unit.training.asked import Uploaded, upload

Row = dict[str, Any]
WORDS = st.sampled_from(
    ["red", " red", "red ", "NA", "null", "None", "-", "10001", "007", "1.5", "1,5", "true", "FALSE", "2024-01-01", "?"]
) | st.text("abcé ,;|\t\"'\u00a0", max_size=6)
NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda value: round(value, 3))
ROWS = st.fixed_dictionaries(
    {
        "number": st.none() | NUMBERS,
        "whole": st.none() | st.integers(-(2**62), 2**62),
        "ok": st.none() | st.booleans(),
        "when": st.none() | st.dates(dt.date(1970, 1, 1), dt.date(2100, 1, 1)).map(str),
        "word": st.none() | WORDS,
        "y": st.sampled_from(["p", "q"]),
    }
)
# So that each column is of one type, whatever is drawn: ten rows of forty are no few.
FIXED = [
    {"number": n + 0.25, "whole": n * 3 % 11, "ok": n % 3 == 0, "when": f"2024-02-1{n}", "word": word, "y": "pq"[n % 2]}
    for n, word in enumerate(["red", "blue", "green", "dark red", "grey", "pink", "black", "white", "teal", "lime"])
]
TABLES = st.lists(ROWS, max_size=30).map(
    lambda rows: [*FIXED, *({name: row[name] for name in FIXED[0]} for row in rows)]
)


def arrow(rows: Sequence[Row]) -> pa.Table:
    types = {"number": pa.float64(), "whole": pa.int64(), "ok": pa.bool_(), "word": pa.string(), "y": pa.string()}
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in types.items()}
    days = [None if row["when"] is None else dt.date.fromisoformat(row["when"]) for row in rows]
    return pa.table({**columns, "when": pa.array(days, pa.date32())}).select(list(rows[0]))


def as_parquet(rows: Sequence[Row]) -> bytes:
    out = io.BytesIO()
    pa_parquet.write_table(arrow(rows), out)
    return out.getvalue()


def as_arrow(rows: Sequence[Row]) -> bytes:
    out, table = io.BytesIO(), arrow(rows)
    with pa.ipc.new_file(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def as_json_lines(rows: Sequence[Row]) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def cell(value: Any, decimal: str = ".") -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value).replace(".", decimal) if isinstance(value, int | float) else str(value)


def as_csv(rows: Sequence[Row], delimiter: str = ",", decimal: str = ".") -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(rows[0])
    writer.writerows([[cell(value, decimal) for value in row.values()] for row in rows])
    return out.getvalue().encode()


def as_quoted_csv(rows: Sequence[Row]) -> bytes:
    """Texts in quotes, and nothing else, as R and our own download write them."""

    def written(value: Any, name: str) -> str:
        quoted = name in ("word", "y") and value is not None
        return '"' + value.replace('"', '""') + '"' if quoted else cell(value)

    lines = [",".join(written(value, name) for name, value in row.items()) for row in rows]
    return ("\n".join([",".join(rows[0]), *lines]) + "\n").encode()


FORMS: dict[str, Callable[[Sequence[Row]], bytes]] = {
    "parquet": as_parquet,
    "arrow": as_arrow,
    "json lines": as_json_lines,
    "csv": as_csv,
    "german csv": lambda rows: as_csv(rows, ";", ","),
    "tsv": lambda rows: as_csv(rows, "\t"),
    "quoted csv": as_quoted_csv,
}


def asked(made: Uploaded, rows: Sequence[Row], form: str) -> dict[str, pd.DataFrame]:
    """The features of the same rows, by each way of asking."""
    decimal = "," if form == "german csv" else "."
    plain = [{name: value for name, value in row.items() if name != "y"} for row in rows]
    cells = [{name: cell(value, decimal) for name, value in row.items()} for row in plain]
    return {
        "rows": made.by_rows(plain),
        "data": made.by_data(plain),
        "tensors": made.by_tensors(plain),
        "cells": made.by_cells(cells),
    }


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=15, deadline=None)
@given(rows=TABLES)
def test_a_model_sees_its_own_rows_as_it_was_trained_on_them(
    tmp_path_factory: pytest.TempPathFactory, form: str, rows: list[Row]
) -> None:
    made = upload(tmp_path_factory.mktemp("table"), FORMS[form](rows), target="y")
    kinds = {"number": "number", "whole": "integer", "ok": "boolean", "when": "datetime", "word": "category"}
    assert {name: kind for name, kind in made.types.items() if name != "y"} == kinds
    for way, frame in asked(made, rows, form).items():
        pd.testing.assert_frame_equal(frame, made.data.frame, obj=f"{form} asked by {way}")


@settings(max_examples=15, deadline=None)
@given(rows=TABLES)
def test_typed_files_of_one_table_make_one_dataset(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    """Parquet, Arrow, JSON lines, and CSV that quotes its texts."""
    forms = ("parquet", "arrow", "json lines", "quoted csv")
    made = [upload(tmp_path_factory.mktemp("table"), FORMS[form](rows), target="y").result.digest for form in forms]
    assert len(set(made)) == 1
