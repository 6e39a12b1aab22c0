"""Three real agents on loopback: data, training, predictions from each, and all killed at once. In this order."""

import signal
from typing import Any

import pytest

from tests.support.data import diabetes_csv, iris_csv, wine_csv
from tests.support.flock import Flock, LocalNode
from tests.support.nodes import NodeHandle
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240), pytest.mark.random_order(disabled=True)]

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
QUICK = ["LogisticRegression", "DecisionTreeClassifier", "GaussianNB", "RandomForestClassifier"]


def predict(flock: Flock, node: LocalNode) -> Any:
    return flock.ask(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]})


def seen_alive(flock: Flock, node: NodeHandle) -> list[str]:
    return [each["name"] for each in flock.view(node)["nodes"] if each["state"] == "alive"]


def test_all_nodes_see_the_same_cluster(flock: Flock) -> None:
    # Ready and with a quorum, a node may still be waiting for the first word of the others.
    for node in flock.nodes:
        wait_for(f"{node.name} to see all", lambda node=node: seen_alive(flock, node) == ["node-1", "node-2", "node-3"])  # type: ignore[misc]
    views = [flock.view(node) for node in flock.nodes]
    assert len({view["cluster_id"] for view in views}) == 1
    assert len({view["leader"] for view in views}) == 1


def test_data_trained_on_one_node_serves_from_all(flock: Flock) -> None:
    pushed = flock.push(flock.nodes[1], "iris", iris_csv(), "?target=species")
    assert all(len(holders) >= 2 for holders in pushed["holders"].values())
    job = flock.submit(flock.nodes[2], {"datasets": ["iris"], "models": QUICK, "seed": 1})
    for node in flock.nodes:  # only one of them has the trainer
        assert flock.read(node, f"/v1/jobs/{job}/live?consistency=linearizable")["job"] == job
    assert flock.wait_for_job(job)["state"] == "succeeded"
    for node in flock.nodes:
        answer = flock.wait_for_answer(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]})
        assert answer.body["predictions"] == ["setosa"]


def test_several_datasets_in_one_job(flock: Flock) -> None:
    flock.push(flock.nodes[0], "wine", wine_csv(), "?target=cultivar")
    flock.push(flock.nodes[1], "diabetes", diabetes_csv(), "?target=progression")
    for order in ("parallel", "sequential"):
        spec = {"datasets": ["wine", "diabetes"], "order": order, "cv": {"folds": 2}, "publish": {"when": "always"}}
        ended = flock.wait_for_job(flock.submit(flock.nodes[0], spec))
        assert ended["state"] == "succeeded", ended
        assert {unit["dataset"]: unit["task"] for unit in ended["per_dataset"]} == {
            "wine": "multiclass",
            "diabetes": "regression",
        }
    asked = "/v1/models/diabetes/versions?consistency=linearizable"
    versions = flock.read(flock.nodes[2], asked)["versions"]
    assert [version["version"] for version in versions] == [2, 1]
    assert versions[0]["aliases"] == ["production"]
    # The same seed gave the same model, whichever way the work was ordered.
    assert versions[0]["metrics"] == versions[1]["metrics"]


def test_the_same_idempotency_key_has_one_effect_on_any_node(flock: Flock) -> None:
    spec = {"datasets": ["iris"], "models": ["GaussianNB"], "publish": {"when": "never"}}
    answers = [
        flock.ask(node, "POST", "/v1/jobs", spec, headers={"Idempotency-Key": "once"}, timeout=60)
        for node in flock.nodes
    ]
    assert {answer.status for answer in answers} == {202}
    assert len({answer.body["id"] for answer in answers}) == 1


def test_everything_is_there_after_all_nodes_were_killed_at_once(flock: Flock) -> None:
    before = flock.ask(flock.nodes[0], "GET", "/v1/models/iris/versions?consistency=linearizable").body
    members = {node["name"]: node["id"] for node in flock.view(flock.nodes[0])["nodes"]}
    old = [node.pid for node in flock.nodes]
    for node in flock.nodes:
        node.signal(signal.SIGKILL)
    wait_for("all to be started again", lambda: len(flock.pids()) == 3 and not {*old} & {*flock.pids().values()}, 60)
    flock.wait_ready()
    flock.wait_for_leader()
    after = flock.read(flock.nodes[0], "/v1/cluster?consistency=linearizable")
    assert {node["name"]: node["id"] for node in after["nodes"]} == members
    assert flock.ask(flock.nodes[1], "GET", "/v1/models/iris/versions?consistency=linearizable").body == before
    assert predict(flock, flock.nodes[2]).body["predictions"] == ["setosa"]
