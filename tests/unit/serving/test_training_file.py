"""The file that a model was trained from, sent as it is, is a good request: the same reader, and what is no input of
the model is ignored."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from parvada.schema import Signature
from serving.bodies import codec_for
from serving.errors import BadInput
from serving.payload import to_features
from serving.payload_v2 import V2Codec
from serving.view import VersionView
from tests.unit.serving.builders import IRIS_INPUTS, MIXED_INPUTS, MIXED_ROW, version_of
from tests.unit.training.data import facts, view_of
from training.frames import prepare
from training.ingest import IngestOptions, ingest

FILE = (
    '\ufeff\n\n;"si\n\u00a0ze";colour;id;w;kind\n'
    "4;2.5;red;a-1;1;p\n2;3.5;blue;a-2;2;q\n9;;red;a-3;1;p\n2;5.5;blue;a-4;1;q\n5;6.5;green;a-5;3;p\n6;7.5;red;a-6;1;q\n"
)
IGNORING = msgspec.structs.replace(
    version_of(MIXED_INPUTS, task="binary", label="boolean", classes=[False, True]),
    signature=Signature(inputs=MIXED_INPUTS, outputs=[], ignored=["churned", "id"]),
)
TYPES = {"age": "INT64", "income": "FP64", "city": "BYTES", "member": "BOOL", "note": "BYTES"}


def trained(folder: Path, content: bytes, **options: Any) -> tuple[VersionView, Any]:
    """A version whose signature is that of a model trained from `content`, and the frame that it was trained from."""
    (folder / "upload").write_bytes(content)
    result = ingest(str(folder / "upload"), msgspec.convert({"out_dir": str(folder), **options}, IngestOptions))
    version, paths = facts(result)
    view = view_of(version, options.get("weight"))
    signature = Signature(inputs=view.inputs, outputs=[], ignored=view.ignored)
    return msgspec.structs.replace(version_of(), signature=signature), prepare(version.digest, paths, view).frame


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_training_file_is_predicted_as_it_was_learned(tmp_path: Path, delimiter: str) -> None:
    body = FILE.replace(";", delimiter).encode()
    version, frame = trained(tmp_path, body, target="kind", drop=["id"], weight="w")
    assert [field.name for field in version.signature.inputs] == ["column_1", "si\n\u00a0ze", "colour"]
    asked = to_features(codec_for("text/csv", 1000).decode(body, version), version)
    assert asked.equals(frame)


def test_the_delimiter_that_is_asked_for_wins(tmp_path: Path) -> None:
    version, _ = trained(tmp_path, FILE.replace(";", "\t").encode(), target="kind", drop=["id"], weight="w")
    tabs = "column_1\tsi ze\tcolour\n1\t2.5\ta,b;c\n"
    request = codec_for("text/tab-separated-values", 1000).decode(tabs.encode(), version)
    assert request.columns["colour"] == ["a,b;c"]
    with pytest.raises(BadInput):
        codec_for("text/tab-separated-values", 1000).decode(tabs.replace("\t", ",").encode(), version)


def test_a_file_of_one_column_needs_no_delimiter() -> None:
    version = version_of([field for field in MIXED_INPUTS if field.name == "city"])
    assert codec_for("text/csv", 1000).decode(b"city\nRome\nOslo\n", version).columns == {"city": ["Rome", "Oslo"]}


def bodies(row: dict[str, Any], types: dict[str, str] | None = None) -> dict[str, bytes]:
    types = TYPES | (types or {})
    tensors = [{"name": n, "shape": [1], "datatype": types.get(n, "BYTES"), "data": [v]} for n, v in row.items()]
    cells = ["" if value is None else str(value) for value in row.values()]
    return {
        "rows": json.dumps({"rows": [row]}).encode(),
        "data": json.dumps({"columns": list(row), "data": [list(row.values())]}).encode(),
        "csv": f"{'|'.join(row)}\n{'|'.join(cells)}\n".encode(),
        "oip": json.dumps({"inputs": tensors}).encode(),
    }


def decoded(form: str, body: bytes, version: VersionView) -> Any:
    codec = V2Codec(1000) if form == "oip" else codec_for("text/csv" if form == "csv" else "application/json", 1000)
    return to_features(codec.decode(body, version), version)


@pytest.mark.parametrize("form", ["rows", "data", "csv", "oip"])
def test_what_is_no_input_is_ignored_and_what_is_unknown_is_refused(form: str) -> None:
    plain = decoded(form, bodies(MIXED_ROW)[form], IGNORING)
    assert decoded(form, bodies({"id": "x", **MIXED_ROW, "churned": None})[form], IGNORING).equals(plain)
    with pytest.raises(BadInput, match=r"'incom'.*no such column; did you mean 'income'") as refused:
        decoded(form, bodies({"id": "x", **MIXED_ROW, "incom": "1"})[form], IGNORING)
    assert refused.value.details["column"] == "incom"


@pytest.mark.parametrize("form", ["rows", "data", "csv", "oip"])
def test_a_model_of_before_ignores_nothing(form: str) -> None:
    with pytest.raises(BadInput, match=r"'id'.*no such column"):
        decoded(form, bodies({**MIXED_ROW, "id": "x"})[form], version_of(MIXED_INPUTS))
    kept = msgspec.json.encode({"inputs": msgspec.to_builtins(IRIS_INPUTS), "outputs": []})
    assert msgspec.json.decode(kept, type=Signature).ignored == []


@pytest.mark.parametrize("form", ["rows", "data", "csv", "oip"])
def test_columns_are_meant_by_what_they_look_like(form: str) -> None:
    renamed = {"age": "Prix\u00a0HT", "income": "Code\n postal", "note": "No\u00adte"}
    inputs = [msgspec.structs.replace(field, name=renamed.get(field.name, field.name)) for field in MIXED_INPUTS]
    signature = Signature(inputs=inputs, outputs=[], ignored=["Prix\u2003TTC"])
    version = msgspec.structs.replace(IGNORING, signature=signature)
    typed = dict(zip(["Prix HT", "Code postal", "city", "member", "Note"], MIXED_ROW.values(), strict=True))
    types = {"Prix HT": "INT64", "Code postal": "FP64"}
    exact = {field.name: value for field, value in zip(inputs, MIXED_ROW.values(), strict=True)}
    frame = decoded(form, bodies(typed | {"Prix TTC": "9"}, types)[form], version)
    assert frame.iloc[0].tolist() == [41.0, 5.5, "Rome", 1.0, "pays late"]
    assert frame.equals(decoded("rows", bodies(exact)["rows"], version))
    with pytest.raises(BadInput, match=r"'Prix\\xa0HT' is given twice"):
        decoded(form, bodies(typed | {"Prix\u00a0HT": 1}, types)[form], version)


@pytest.mark.parametrize("form", ["rows", "data", "csv", "oip"])
def test_a_name_that_may_mean_two_columns_is_refused_with_both(form: str) -> None:
    signature = Signature(inputs=MIXED_INPUTS, outputs=[], ignored=["an id", "an\u00a0id"])
    version = msgspec.structs.replace(IGNORING, signature=signature)
    assert len(decoded(form, bodies(MIXED_ROW | {"an id": "x", "an\u00a0id": "y"})[form], version)) == 1
    with pytest.raises(BadInput, match=r"'an id', 'an\\xa0id'") as refused:
        decoded(form, bodies(MIXED_ROW | {"an  id": "x"})[form], version)
    json.dumps(refused.value.details)


def test_an_ignored_tensor_may_have_any_shape_and_data() -> None:
    row = json.loads(bodies(MIXED_ROW)["oip"])
    row["inputs"].append({"name": "churned", "shape": [4, 2], "datatype": "JSON", "data": {"any": "thing"}})
    assert len(decoded("oip", json.dumps(row).encode(), IGNORING)) == 1
