"""Inference protocol tensors: both input forms, nested or flat, all datatypes; every misfit is a named 400."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from serving.errors import BadInput, TooLarge
from serving.payload import Request, to_features
from serving.payload_v2 import V2Codec, input_tensors, output_tensors
from serving.tensors import DATATYPES
from tests.unit.serving.builders import IRIS_INPUTS, MIXED_INPUTS, MIXED_ROW, version_of

CODEC = V2Codec(max_values=1_000_000)
IRIS = version_of()
MIXED = version_of(MIXED_INPUTS, task="binary", label="boolean", classes=[False, True])
NAMES = [field.name for field in IRIS_INPUTS]
MIXED_TYPES = {"age": "INT64", "income": "FP64", "city": "BYTES", "member": "BOOL", "note": "BYTES"}


def tensor(name: str, shape: list[int], datatype: str, data: Any) -> dict[str, Any]:
    return {"name": name, "shape": shape, "datatype": datatype, "data": data}


def body(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": inputs} | more).encode()


def mixed(**changed: Any) -> list[dict[str, Any]]:
    return [tensor(name, [1], MIXED_TYPES[name], [value]) for name, value in (MIXED_ROW | changed).items()]


def columns(request: Request) -> dict[str, list[Any]]:
    return {name: list(values) for name, values in request.columns.items()}


matrices = st.integers(1, 6).flatmap(
    lambda rows: st.lists(
        st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=4, max_size=4), min_size=rows, max_size=rows
    )
)


@given(matrices, st.sampled_from(["FP16", "FP32", "FP64"]))
def test_nested_flat_and_a_tensor_for_each_column_are_the_same(rows: list[list[float]], datatype: str) -> None:
    shape = [len(rows), 4]
    flat = [value for row in rows for value in row]
    by_column = [tensor(n, [len(rows), 1], datatype, [[row[i]] for row in rows]) for i, n in enumerate(NAMES)]
    by_vector = [tensor(n, [len(rows)], datatype, [row[i] for row in rows]) for i, n in enumerate(NAMES)]
    forms = [
        body(tensor("input-0", shape, datatype, rows)),
        body(tensor("predict", shape, datatype, flat)),
        body(*by_column),
        body(*reversed(by_vector), parameters={"content_type": "pd"}),
    ]
    decoded = [columns(CODEC.decode(form, IRIS)) for form in forms]
    wanted = {name: [row[i] for row in rows] for i, name in enumerate(NAMES)}
    assert decoded == [wanted] * 4


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
def test_every_datatype_takes_its_edges_and_refuses_what_lies_beyond(datatype: str) -> None:
    kind = DATATYPES[datatype]
    edges: dict[str, list[Any]] = {"BOOL": [True, False], "BYTES": ["", "é", "a,b"]}
    good = edges.get(datatype, [0, 1])
    bad: Any = {"BOOL": 1, "BYTES": 7}.get(datatype, "x")
    if kind.low is not None and kind.high is not None:
        good, bad = [kind.low, kind.high], kind.high + 1
    version = version_of([IRIS_INPUTS[0]])
    name = IRIS_INPUTS[0].name
    request = CODEC.decode(body(tensor(name, [len(good)], datatype, good)), version)
    assert columns(request) == {name: good}
    with pytest.raises(BadInput) as refused:
        CODEC.decode(body(tensor(name, [len(good) + 1, 1], datatype, [*good, bad])), version)
    assert refused.value.details["row"] == len(good) + 1


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (body(tensor("x", [1, 3], "FP64", [1, 2, 3])), ["3 features", "has 4"]),
        (body(tensor("x", [2, 4], "FP64", [1, 2, 3, 4])), ["4 values", "needs 8"]),
        (body(tensor("x", [1, 4], "FP64", [1, 2, 3, 4, 5])), ["5 values", "needs 4"]),
        (body(tensor("x", [2, 4], "FP64", [[1, 2, 3], [4, 5, 6, 7, 8]])), ["row 1", "3 nested"]),
        (body(tensor("x", [1, 4], "FP64", [[[1, 2, 3, 4]]])), ["is not a number"]),
        (body(tensor("x", [1, 4], "FP64", [1, "2", 3, 4])), ["row 1, column 2", "'2'"]),
        (body(tensor("x", [1, 4], "FP64", [1, True, 3, 4])), ["row 1, column 2", "True"]),
        (body(tensor("x", [1, 4], "FP64", 5)), ["must be a list"]),
        (body(tensor("x", [1, 4], "COMPLEX", [1, 2, 3, 4])), ["'COMPLEX'"]),
        (body(tensor("x", [-1, 4], "FP64", [1, 2, 3, 4])), ["no rows"]),
        (body(tensor("x", [0, 4], "FP64", [])), ["no rows"]),
        (body(tensor("x", [4], "FP64", [1, 2, 3, 4])), ["'x'", "no such column"]),
        (body({"name": "x", "shape": [1, 4], "datatype": "FP64", "parameters": {"binary_data_size": 32}}), ["no data"]),
        (body(tensor(NAMES[0], [1], "FP64", [1])), ["missing", NAMES[1]]),
        (
            body(*(tensor(n, [1 + (n == NAMES[2])], "FP64", [1, 2][: 1 + (n == NAMES[2])]) for n in NAMES)),
            ["different"],
        ),
        (body(tensor(NAMES[0], [1, 2], "FP64", [1, 2]), tensor(NAMES[1], [1], "FP64", [1])), ["missing"]),
        (body(), ["no inputs"]),
        (b'{"inputs": [{"name": "x"}]}', ["shape"]),
        (b'{"inputs": [{"name":"x","shape":[1,4],"datatype":"FP64","data":[1,NaN,3,4]}]}', ["malformed"]),
        (b"{", ["not an inference request"]),
        (b'{"inputs": ' + b"[" * 100_000, ["not an inference request"]),
        (
            b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":' + b"[" * 50_000 + b"]" * 50_000 + b"}]}",
            [],
        ),
    ],
)
def test_misfits_are_refused_and_named(raw: bytes, words: list[str]) -> None:
    with pytest.raises(BadInput) as refused:
        CODEC.decode(raw, IRIS)
    assert [word for word in words if word not in str(refused.value)] == [], str(refused.value)
    json.dumps(refused.value.details, allow_nan=False)


def test_one_tensor_for_all_is_refused_where_a_column_is_not_a_number() -> None:
    with pytest.raises(BadInput) as refused:
        CODEC.decode(body(tensor("x", [1, 5], "FP64", [1, 2, 3, 4, 5])), MIXED)
    assert refused.value.details["columns"] == ["city", "member", "note"]


def test_mixed_columns_arrive_and_an_optional_one_may_be_absent() -> None:
    request = CODEC.decode(body(*(t for t in mixed() if t["name"] != "income")), MIXED)
    frame = to_features(request, MIXED)
    assert frame["income"].isna().all()
    assert frame["city"].tolist() == ["Rome"]
    assert frame["member"].tolist() == [1.0]


@pytest.mark.parametrize(("name", "value"), [("city", None), ("age", None)])
def test_null_in_a_required_column_is_refused(name: str, value: Any) -> None:
    request = CODEC.decode(body(*mixed(**{name: value})), MIXED)
    with pytest.raises(BadInput) as refused:
        to_features(request, MIXED)
    assert (refused.value.details["column"], refused.value.details["row"]) == (name, 1)


def test_null_is_absent() -> None:
    inputs = [tensor(name, [1], "FP64", [1.0]) | {"parameters": None} for name in NAMES]
    request = CODEC.decode(body(*inputs, id=None, parameters=None, outputs=None), IRIS)
    assert (request.id, request.outputs, columns(request)) == (None, None, {name: [1.0] for name in NAMES})
    asked = CODEC.decode(body(*inputs, outputs=[{"name": "predict", "parameters": None}]), IRIS)
    assert asked.outputs == ("predict",)


def test_ten_million_values_are_too_many() -> None:
    with pytest.raises(TooLarge):
        CODEC.decode(body(tensor("x", [2_500_000, 4], "FP64", [])), IRIS)


def test_more_data_than_the_shape_says_is_refused_before_it_is_decoded() -> None:
    raw = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP64","data":[' + b"1," * 5_000_000 + b"1]}]}"
    with pytest.raises(BadInput) as refused:
        CODEC.decode(raw, IRIS)
    assert refused.value.details["values"] == 5_000_001


def test_metadata_names_every_column_with_its_datatype() -> None:
    assert {t.name: t.datatype for t in input_tensors(MIXED)} == MIXED_TYPES
    assert [(t.name, t.datatype, t.shape) for t in output_tensors(MIXED)] == [
        ("predict", "BOOL", [-1]),
        ("predict_proba", "FP64", [-1, 2]),
    ]
