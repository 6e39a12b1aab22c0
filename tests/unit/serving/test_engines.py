"""A model file is loaded only if it is what the registry says, made of types that we trust; labels keep their type."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parvada.columns import to_frame
from parvada.schema import Signature
from serving import engines
from serving.errors import LoadFailed, UnusableInput
from serving.heads import Head
from serving.payload import JsonCodec, Served, to_features
from serving.view import VersionView
from tests.unit.serving.builders import IRIS_INPUTS, MIXED_ROW, iris_model, mixed_model, model_of, save, version_of

CODEC = JsonCodec(max_values=1000)
FLOWERS = [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]]


def answer(path: Path, version: VersionView, rows: list[dict[str, Any]]) -> dict[str, Any]:
    served = Served(model_of(version), version, engines.load(path, version))
    request = CODEC.decode(json.dumps({"rows": rows}).encode(), version)
    results = served.engine.run(to_features(request, version), CODEC.outputs(request, served))
    decoded: dict[str, Any] = json.loads(CODEC.encode(request, served, results))
    return decoded


def flowers() -> list[dict[str, Any]]:
    return [dict(zip((field.name for field in IRIS_INPUTS), flower, strict=True)) for flower in FLOWERS]


def test_integer_labels_stay_integers(tmp_path: Path) -> None:
    given = answer(*iris_model(tmp_path), flowers())
    assert given["predictions"] == [0, 2]
    assert {type(label) for label in given["predictions"]} == {int}
    assert given["probabilities"][0].keys() == {"0", "1", "2"}
    assert sum(given["probabilities"][0].values()) == pytest.approx(1)
    assert (given["model"], given["version"], given["engine"]) == ("iris", 1, "sklearn")


def test_text_labels_stay_texts(tmp_path: Path) -> None:
    given = answer(*iris_model(tmp_path, labels=["setosa", "versicolor", "virginica"]), flowers())
    assert given["predictions"] == ["setosa", "virginica"]
    assert given["probabilities"][1]["virginica"] > 0.5


def test_boolean_labels_and_mixed_columns(tmp_path: Path) -> None:
    given = answer(*mixed_model(tmp_path), [MIXED_ROW, MIXED_ROW | {"city": "Nowhere", "income": None, "note": None}])
    assert all(isinstance(label, bool) for label in given["predictions"])
    assert given["probabilities"][0].keys() == {"true", "false"}


# The overflow is what this is about.
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_a_regression_that_overflows_answers_null(tmp_path: Path) -> None:
    from sklearn.linear_model import LinearRegression

    from tests.unit.serving.builders import pipeline

    inputs = IRIS_INPUTS[:1]
    frame = to_frame({inputs[0].name: [0.0, 1.0]}, inputs)
    path, digest, size = save(pipeline(frame, [0.0, 1e150], inputs, LinearRegression()), tmp_path)
    version = version_of(inputs, digest=digest, size=size, task="regression", label="integer")
    given = answer(path, version, [{inputs[0].name: 0.25}, {inputs[0].name: 1e300}])
    assert given["predictions"] == [pytest.approx(2.5e149), None]
    assert "probabilities" not in given


def test_a_damaged_file_is_not_loaded(tmp_path: Path) -> None:
    path, version = iris_model(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(LoadFailed, match="damaged"):
        engines.load(path, version)


def test_types_that_we_do_not_trust_are_not_loaded(tmp_path: Path) -> None:
    """The file may well say that it trusts them itself: nobody asks it."""
    path, digest, size = save({"model": Path("/etc/passwd"), "call": Dangerous}, tmp_path)
    with pytest.raises(LoadFailed, match="Untrusted"):
        engines.load(path, version_of(digest=digest, size=size))


@pytest.mark.parametrize("make", [iris_model, mixed_model])
def test_the_short_way_through_preprocessing_gives_the_very_same(make: Any, tmp_path: Path) -> None:
    import skops.io

    from parvada.trusted import TRUSTED_TYPES

    path, version = make(tmp_path)
    inputs = version.signature.inputs
    whole = skops.io.load(path, trusted=list(TRUSTED_TYPES))
    head = Head(skops.io.load(path, trusted=list(TRUSTED_TYPES))[:-1], inputs)
    rows = [MIXED_ROW, MIXED_ROW | {"city": "Nowhere", "income": None, "note": None}, MIXED_ROW | {"age": -3}]
    columns = {f.name: [row.get(f.name, n) for n, row in enumerate(rows)] for f in inputs}
    frame = to_frame(columns, inputs)
    assert head.short
    assert np.array_equal(head.transform(frame), whole[:-1].transform(frame))
    assert np.array_equal(engines.load(path, version).run(frame, ["predict"])["predict"], whole.predict(frame))


class Dangerous:
    """A type from outside the list."""


def test_a_pickle_is_never_opened(tmp_path: Path) -> None:
    import hashlib

    marker = tmp_path / "opened"
    data = pickle.dumps(Touch(marker))
    path = tmp_path / "model"
    path.write_bytes(data)
    with pytest.raises(LoadFailed):
        engines.load(path, version_of(digest=hashlib.sha256(data).hexdigest(), size=len(data)))
    assert not marker.exists()


class Touch:
    """Leaves a mark when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_a_refusal_of_the_estimator_is_the_inputs_fault() -> None:
    from sklearn.linear_model import LogisticRegression

    columns = {field.name: [1.0, 2.0] for field in IRIS_INPUTS}
    fitted = LogisticRegression().fit(to_frame(columns, IRIS_INPUTS), [0, 1])
    optional = [type(f)(name=f.name, type=f.type, required=False) for f in IRIS_INPUTS]
    frame = to_frame({IRIS_INPUTS[0].name: [None]}, optional)
    with pytest.raises(UnusableInput, match="NaN"):
        engines.SklearnEngine(fitted, Signature(inputs=optional, outputs=[])).run(frame, ["predict"])
