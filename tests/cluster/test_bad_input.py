"""Every kind of bad input, on a real flock over its client port: a 4xx with a sentence that names what is wrong, and
nothing changed on any node."""

import gzip
import json
from typing import Any, NamedTuple

import pytest

from tests.support.data import iris_csv
from tests.support.flock import Flock
from tests.support.http import request
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

IRIS = iris_csv().decode()
HEADER = IRIS.splitlines()[0]
MIXED = "size,colour,sold,price\n" + "".join(
    f"{n},{'red' if n % 2 else 'blue'},{'true' if n % 3 else 'false'},{n * 2.5}\n" for n in range(60)
)
JOB = "/v1/jobs"
PREDICT = "/v1/models/goods/predict"
GOOD = {"size": 3, "colour": "red", "sold": True}


class Case(NamedTuple):
    name: str
    method: str
    path: str
    body: bytes | dict[str, Any]
    status: int
    said: tuple[str, ...]
    """Parts of the sentence: the name, row, column or value at fault, or what would be right."""


def put(name: str, content: str | bytes, status: int, *said: str, query: str = "target=species") -> Case:
    body = content if isinstance(content, bytes) else content.encode()
    return Case(name, "PUT", f"/v1/datasets/bad?{query}", body, status, said)


def train(name: str, spec: dict[str, Any], status: int, *said: str) -> Case:
    return Case(name, "POST", JOB, spec, status, said)


def ask(name: str, body: bytes | dict[str, Any], status: int, *said: str, path: str = PREDICT) -> Case:
    return Case(name, "POST", path, body, status, said)


def row(**changed: Any) -> dict[str, Any]:
    return {"rows": [{key: value for key, value in {**GOOD, **changed}.items() if value != "drop"}]}


CASES = (
    put("not a CSV", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, 422),
    put("broken gzip", gzip.compress(IRIS.encode())[:200], 422),
    put("empty file", "", 422, "empty"),
    put("header only", HEADER + "\n", 422, "row"),
    put("ragged row", IRIS.replace("\n4.9,3.0,1.4,0.2,setosa", "\n4.9,3.0,1.4,setosa", 1), 422, "3"),
    put("duplicate column", IRIS.replace("sepal_width", "sepal_length", 1), 422, "sepal_length"),
    put("target missing", IRIS, 422, "specie", "species", query="target=specie"),
    put("target constant", HEADER + "\n" + "5.1,3.5,1.4,0.2,setosa\n" * 30, 422, "species"),
    put("one class, rest missing", HEADER + "\n" + "1,1,1,1,a\n1,1,1,1,\n" * 20, 422, "species"),
    put("target always missing", HEADER + "\n" + "1,1,1,1,\n" * 20, 422, "species"),
    put("unknown task", IRIS, 400, "task", query="target=species&task=regresion"),
    put("unknown format", IRIS, 415, "xlsx", "csv", query="target=species&format=xlsx"),
    put("unknown parameter", IRIS, 400, "traget", "target", query="traget=species"),
    put("column to drop unknown", IRIS, 400, "petal", query="target=species&drop=petal"),
    Case("dataset name", "PUT", "/v1/datasets/a%20b?target=species", IRIS.encode(), 400, ("a b",)),
    Case("unknown dataset", "GET", "/v1/datasets/irsi", b"", 404, ("irsi", "iris")),
    Case("unknown dataset version", "GET", "/v1/datasets/iris/versions/9", b"", 404, ("9",)),
    train("unknown dataset to train on", {"datasets": ["irsi"]}, 404, "irsi", "iris"),
    train("no dataset", {"datasets": []}, 400, "datasets"),
    train("unknown estimator", {"datasets": ["iris"], "models": ["RandomForrestClassifier"]}, 400,
          "RandomForrestClassifier", "RandomForestClassifier"),
    train("unknown parameter of an estimator",
          {"datasets": ["iris"], "models": [{"estimator": "RandomForestClassifier", "params": {"n_estimator": 5}}]},
          400, "n_estimator", "n_estimators"),
    train("wrong value of a parameter",
          {"datasets": ["iris"], "models": [{"estimator": "RandomForestClassifier", "params": {"n_estimators": -5}}]},
          400, "n_estimators", "-5"),
    train("unknown metric", {"datasets": ["iris"], "metric": "acuracy"}, 400, "acuracy", "accuracy"),
    train("unknown field", {"datasets": ["iris"], "sed": 1}, 400, "sed", "seed"),
    train("wrong type of a field", {"datasets": ["iris"], "seed": "seven"}, 400, "seed"),
    train("folds out of range", {"datasets": ["iris"], "cv": {"folds": 1}}, 400, "folds"),
    train("target of a job unknown", {"datasets": [{"name": "iris", "target": "specis"}]}, 400, "specis", "species"),
    Case("job not JSON", "POST", JOB, b"{datasets", 400, ("JSON",)),
    Case("unknown job", "GET", "/v1/jobs/nope", b"", 404, ("nope",)),
    Case("unknown model", "GET", "/v1/models/godos", b"", 404, ("godos", "goods")),
    Case("unknown model version", "GET", "/v1/models/goods/versions/7", b"", 404, ("7",)),
    Case("alias to an unknown version", "PUT", "/v1/models/goods/aliases/production", {"version": 7}, 404, ("7",)),
    Case("alias expected elsewhere", "PUT", "/v1/models/goods/aliases/production", {"version": 1, "expected": 5},
         409, ()),
    Case("unknown alias", "DELETE", "/v1/models/goods/aliases/prodution", b"", 404, ("prodution", "production")),
    ask("predict: unknown model", row(), 404, "godos", path="/v1/models/godos/predict"),
    ask("predict: unknown version", row(), 404, "7", path="/v1/models/goods/versions/7/predict"),
    ask("predict: missing column", row(size="drop"), 400, "size"),
    ask("predict: unknown column", row(weight=1), 400, "weight"),
    ask("predict: wrong type", row(size="large"), 400, "size", "large"),
    ask("predict: unknown category in a boolean", row(sold="perhaps"), 400, "sold", "perhaps"),
    ask("predict: no rows", {"rows": []}, 400, "row"),
    ask("predict: not JSON", b"{rows", 400),
    ask("predict: ten million values",
        json.dumps({"columns": ["size", "colour", "sold"], "data": [[1, "red", True]] * 3_400_000}).encode(), 413),
    ask("infer: wrong number of elements",
        {"inputs": [{"name": "size", "shape": [2], "datatype": "FP64", "data": [1.0]},
                    {"name": "colour", "shape": [2], "datatype": "BYTES", "data": ["red", "red"]},
                    {"name": "sold", "shape": [2], "datatype": "BOOL", "data": [True, False]}]}, 400, "size",
        path="/v2/models/goods/infer"),
    ask("infer: unknown model", {"inputs": []}, 404, "godos", path="/v2/models/godos/infer"),
    Case("unknown path", "GET", "/v1/nothing", b"", 404, ("/v1/nothing",)),
    Case("wrong verb", "DELETE", "/v1/cluster", b"", 405, ()),
)  # fmt: skip


@pytest.fixture(scope="module")
def goods(flock: Flock) -> Flock:
    """A flock with the dataset `iris`, and a model `goods` with a number, a category and a boolean column."""
    flock.push(flock.nodes[0], "iris", iris_csv(), "?target=species")
    flock.push(flock.nodes[0], "goods", MIXED.encode(), "?target=price")
    job = flock.submit(flock.nodes[0], {"datasets": ["goods"], "models": ["Ridge"], "cv": {"folds": 2}})
    assert flock.wait_for_job(job)["state"] == "succeeded"
    for node in flock.nodes:
        flock.wait_for_answer(node, "POST", PREDICT, row())
    return flock


def everything(flock: Flock) -> list[Any]:
    """What a client can see of the registry, once every copy is where it belongs: holders come by themselves."""
    wait_for("all copies", lambda: all(len(held) == len(flock.nodes) for held in holders(flock)))
    paths = ("/v1/datasets", "/v1/jobs", "/v1/models", "/v1/models/goods/versions", "/v1/tokens")
    return [flock.ask(flock.nodes[1], "GET", f"{path}?consistency=linearizable").body for path in paths]


def holders(flock: Flock) -> list[list[str]]:
    """Of each part of each dataset, and of each model."""
    datasets = flock.read(flock.nodes[1], "/v1/datasets?consistency=linearizable")["datasets"]
    versions = flock.read(flock.nodes[1], "/v1/models/goods/versions?consistency=linearizable")["versions"]
    parts = [held for dataset in datasets for held in dataset["holders"].values()]
    return parts + [version["holders"] for version in versions]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_refused_with_a_sentence_and_changes_nothing(goods: Flock, case: Case) -> None:
    before = everything(goods)
    answer = goods.ask(goods.nodes[2], case.method, case.path, case.body, timeout=60)
    assert answer.status == case.status, answer
    assert set(answer.body) == {"error", "code", "details"}
    assert len(answer.body["error"]) > 10
    assert "Traceback" not in answer.body["error"]
    for part in case.said:
        assert part in answer.body["error"], answer.body
    assert everything(goods) == before
    leftovers = [path.name for node in goods.nodes for path in (node.data / "tmp").iterdir()]
    assert leftovers == []


def test_rows_without_a_target_are_dropped_and_counted(goods: Flock) -> None:
    content = IRIS.replace("0.2,setosa", "0.2,", 3).encode()
    assert goods.push(goods.nodes[0], "holes", content, "?target=species")["dropped_rows"] == 3


def test_an_unseen_category_is_accepted(goods: Flock) -> None:
    answer = goods.ask(goods.nodes[0], "POST", PREDICT, row(colour="ultraviolet"))
    assert answer.status == 200


@pytest.mark.parametrize(("role", "status"), [("viewer", 403), ("predictor", 403), ("operator", 201)])
def test_a_token_opens_what_its_role_may(goods: Flock, role: str, status: int) -> None:
    made = goods.ask(goods.nodes[0], "POST", "/v1/tokens", {"name": f"by-{role}", "role": role}).body
    path = f"{goods.nodes[1].url}/v1/datasets/by-{role}?target=species"
    assert request("PUT", path, IRIS.encode()).status == 401
    assert request("PUT", path, IRIS.encode(), token="pvt_wrong").status == 401
    assert request("PUT", path, IRIS.encode(), token=made["token"], timeout=60).status == status
