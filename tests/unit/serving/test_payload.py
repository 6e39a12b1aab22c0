"""Our JSON and CSV: every bad input is refused by name before the model sees it, every good one arrives as sent."""

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from parvada.schema import InputField
from parvada.texts import MISSING
from serving.bodies import codec_for
from serving.errors import BadInput, TooLarge, UnsupportedFormat
from serving.payload import CsvCodec, JsonCodec, to_features
from tests.unit.serving.builders import IRIS_INPUTS, MIXED_INPUTS, MIXED_ROW, version_of

JSON = JsonCodec(max_values=1_000_000)
CSV = CsvCodec(max_values=1_000_000)
MIXED = version_of(MIXED_INPUTS, task="binary", label="boolean", classes=[False, True])
IRIS = version_of()


def rows_body(*rows: Any) -> bytes:
    return json.dumps({"rows": rows}).encode()


def changed(**values: Any) -> dict[str, Any]:
    return MIXED_ROW | values


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in MIXED_ROW.items() if key != name}


@pytest.mark.parametrize(
    ("body", "details", "words"),
    [
        (rows_body(without("age")), {"column": "age"}, ["'age'", "missing"]),
        (rows_body(MIXED_ROW, without("city")), {"column": "city", "row": 2}, ["'city'", "row 2", "required"]),
        (rows_body(changed(age="old")), {"column": "age", "row": 1, "value": "old"}, ["'age'", "row 1", "'old'"]),
        (rows_body(changed(age=True)), {"column": "age", "row": 1, "value": True}, ["'age'", "True"]),
        (rows_body(changed(age=None)), {"column": "age", "row": 1}, ["'age'", "required"]),
        (rows_body(changed(income=[1])), {"column": "income", "row": 1}, ["'income'", "[1]"]),
        (rows_body(changed(city=3)), {"column": "city", "row": 1, "value": 3}, ["'city'", "3"]),
        (
            rows_body(MIXED_ROW, changed(member="maybe")),
            {"column": "member", "row": 2, "value": "maybe"},
            ["'member'", "row 2", "'maybe'", "true nor false"],
        ),
        (
            rows_body(changed(agee=1)),
            {"column": "agee", "row": 1, "nearest": ["age"]},
            ["'agee'", "did you mean 'age'"],
        ),
        (rows_body(), {}, ["no rows"]),
        (rows_body([1, 2]), {"row": 1}, ["row 1"]),
        (b'{"columns": ["age", "age"], "data": [[1, 2]]}', {"column": "age"}, ["'age'", "twice"]),
        (
            json.dumps({"columns": list(MIXED_ROW), "data": [list(MIXED_ROW.values()), [1]]}).encode(),
            {"row": 2},
            ["row 2", "1 values for 5 columns"],
        ),
        (json.dumps({"columns": list(MIXED_ROW), "data": []}).encode(), {}, ["no rows"]),
        (b'{"columns": ["age"]}', {}, ["columns", "data"]),
        (b'{"rows": [], "data": []}', {}, ["either"]),
        (b'{"row": []}', {}, ["unknown field `row`"]),
        (b"[1]", {}, ["Expected `object`"]),
        (b'{"rows": [{"age": NaN}]}', {}, ["malformed"]),
        (b'{"rows": [{"age": 1e999}]}', {}, ["out of range"]),
        (b'{"rows": ' + b"[" * 100_000, {}, []),
        (b"", {}, ["not as expected"]),
        (b"\xff\xfe", {}, []),
    ],
)
def test_bad_json_is_refused_and_named(body: bytes, details: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(BadInput) as refused:
        to_features(JSON.decode(body, MIXED), MIXED)
    message = str(refused.value)
    assert [word for word in words if word not in message] == [], message
    assert {key: refused.value.details.get(key) for key in details} == details
    json.dumps(refused.value.details, allow_nan=False)


@pytest.mark.parametrize("codec", [JSON, CSV])
def test_ten_million_values_are_too_many(codec: JsonCodec | CsvCodec) -> None:
    names = [field.name for field in IRIS_INPUTS]
    if isinstance(codec, JsonCodec):
        body = b'{"columns":' + json.dumps(names).encode() + b',"data":[' + b"[1,2,3,4]," * 2_500_000 + b"[1,2,3,4]]}"
    else:
        body = ",".join(names).encode() + b"\n" + b"1,2,3,4\n" * 2_500_000
    with pytest.raises(TooLarge) as refused:
        codec.decode(body, IRIS)
    assert refused.value.details["max_values"] == 1_000_000


def test_as_many_values_as_allowed_pass() -> None:
    small = JsonCodec(max_values=8)
    row = {field.name: 1.0 for field in IRIS_INPUTS}
    assert small.decode(rows_body(row, row), IRIS).rows == 2
    with pytest.raises(TooLarge):
        small.decode(rows_body(row, row, row), IRIS)


def test_unseen_category_and_missing_optional_values_are_taken() -> None:
    request = JSON.decode(rows_body(changed(city="Nowhere", income=None), without("note")), MIXED)
    frame = to_features(request, MIXED)
    assert frame["city"].tolist() == ["Nowhere", "Rome"]
    assert frame["income"].isna().tolist() == [True, False]
    assert frame["note"].tolist() == ["pays late", ""]


@pytest.mark.parametrize("body", [b'{"rows": [{}, {}]}', b'{"columns": [], "data": [[], []]}'])
def test_rows_without_a_value_are_rows_where_every_column_is_optional(body: bytes) -> None:
    optional = version_of([InputField(name=f.name, type=f.type, required=False) for f in MIXED_INPUTS])
    frame = to_features(JSON.decode(body, optional), optional)
    assert frame["age"].isna().tolist() == [True, True]
    assert frame["city"].tolist() == ["", ""]


def test_columns_may_come_in_any_order() -> None:
    names = list(reversed(MIXED_ROW))
    body = json.dumps({"columns": names, "data": [[MIXED_ROW[name] for name in names]]}).encode()
    assert to_features(JSON.decode(body, MIXED), MIXED).equals(
        to_features(JSON.decode(rows_body(MIXED_ROW), MIXED), MIXED)
    )


CSV_HEADER = "age,income,city,member,note\n"


@pytest.mark.parametrize(
    ("text", "details"),
    [
        (CSV_HEADER, {}),
        ("", {"column": "age"}),
        (CSV_HEADER + "41,5.5,Rome\n", {"row": 1}),
        (CSV_HEADER + "41,5.5,Rome,true,x\nold,5.5,Rome,true,x\n", {"column": "age", "row": 2, "value": "old"}),
        (CSV_HEADER + "inf,5.5,Rome,true,x\n", {"column": "age", "row": 1}),
        (CSV_HEADER + ",5.5,Rome,true,x\n", {"column": "age", "row": 1}),
        (CSV_HEADER + "41,5.5,Rome,maybe,x\n", {"column": "member", "row": 1, "value": "maybe"}),
        ("age,income,city,member,colour\n1,2,Rome,true,red\n", {"column": "colour"}),
        ('age,income,city,member\n1,2,"Rome,true\n', {}),
    ],
)
def test_bad_csv_is_refused_and_named(text: str, details: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as refused:
        to_features(CSV.decode(text.encode(), MIXED), MIXED)
    assert {key: refused.value.details.get(key) for key in details} == details


def test_csv_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(BadInput, match="UTF-8"):
        CSV.decode(CSV_HEADER.encode() + b"41,5.5,M\xfcnchen,true,x\n", MIXED)


numbers = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False, width=32))
mixed_rows = st.fixed_dictionaries(
    {
        "age": st.integers(-(2**53), 2**53),
        "income": numbers,
        "city": st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1).filter(
            lambda text: text == text.strip() and text not in MISSING
        ),
        "member": st.booleans(),
        "note": st.one_of(st.none(), st.just('a,"b"\nc')),
    }
)


@given(st.lists(mixed_rows, min_size=1, max_size=8))
def test_rows_data_and_csv_make_the_same_features(rows: list[dict[str, Any]]) -> None:
    """The formats differ in nothing that a model could see."""
    names = [field.name for field in MIXED_INPUTS]
    cells = [[row[name] for name in names] for row in rows]
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([["" if v is None else str(v) for v in row] for row in cells])
    wanted = to_features(JSON.decode(rows_body(*rows), MIXED), MIXED)
    data = to_features(JSON.decode(json.dumps({"columns": names, "data": cells}).encode(), MIXED), MIXED)
    table = to_features(CSV.decode(b"\xef\xbb\xbf" + text.getvalue().encode(), MIXED), MIXED)
    assert wanted.equals(data)
    assert wanted.drop(columns=["city", "note"]).equals(table.drop(columns=["city", "note"]))
    assert wanted["note"].tolist() == table["note"].tolist()


@pytest.mark.parametrize(
    ("content_type", "kind"),
    [
        ("application/json", JsonCodec),
        ("", JsonCodec),
        ("application/x-www-form-urlencoded", JsonCodec),
        ("text/csv", CsvCodec),
        ("text/tab-separated-values", CsvCodec),
    ],
)
def test_format_by_content_type(content_type: str, kind: type) -> None:
    assert isinstance(codec_for(content_type, 1), kind)


def test_unknown_format_is_refused() -> None:
    with pytest.raises(UnsupportedFormat, match="image/png"):
        codec_for("image/png", 1)
