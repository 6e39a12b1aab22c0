"""Leaders die, in training and at rest, or lose their majority: what goes on, and what is said. In this order."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.data import iris_csv, wine_csv
from tests.support.flock import Flock, LocalNode, running
from tests.support.nodes import comparable
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.random_order(disabled=True)]

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
QUICK = ["LogisticRegression", "DecisionTreeClassifier", "GaussianNB", "RandomForestClassifier"]
LONG = {
    "datasets": ["wine"],
    "models": QUICK,
    "seed": 3,
    "cv": {"folds": 5, "repeats": 4},
    "publish": {"when": "never"},
}
KILLS = 3
MOST_TERMS = 4
"""Elections that one death may take: a vote may split, but who stands again and again does not let anybody win."""


@pytest.fixture(scope="module")
def flock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flock]:
    """Three nodes that predict with a model `iris`, and have the data of another."""
    folder: Path = tmp_path_factory.mktemp("flock")
    with running(folder / "data", 3) as started:
        first = started.nodes[0]
        started.push(first, "iris", iris_csv(), "?target=species")
        started.push(first, "wine", wine_csv(), "?target=cultivar")
        job = started.submit(first, {"datasets": ["iris"], "models": ["GaussianNB"], "cv": {"folds": 2}})
        assert started.wait_for_job(job)["state"] == "succeeded"
        for node in started.nodes:
            started.wait_for_answer(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]})
        yield started


def predict(flock: Flock, node: LocalNode) -> Any:
    return flock.ask(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]}, timeout=30.0)


def term(flock: Flock, node: LocalNode) -> int:
    return int(flock.read(node, "/v1/cluster?consistency=linearizable")["term"])


def test_a_leader_killed_in_training_costs_no_prediction_and_no_finished_fold(flock: Flock) -> None:
    undisturbed = flock.submit(flock.nodes[0], LONG)
    assert flock.wait_for_job(undisturbed)["state"] == "succeeded"
    leader = flock.leader_that_trains()
    survivors = [node for node in flock.nodes if node.name != leader.name]
    job = flock.submit(survivors[0], LONG)
    done = wait_for("folds to be done", lambda: (n := flock.job(job)["progress"]["trials_done"]) >= 20 and n, 60)
    stop, failures, answered = threading.Event(), [], list[str]()

    def load(node: LocalNode) -> None:
        while not stop.is_set():
            try:
                answer = predict(flock, node)
                if answer.status != 200:
                    failures.append(f"{node.name}: {answer.status} {answer.body}")
            except OSError as error:
                failures.append(f"{node.name}: {error!r}")
            answered.append(node.name)
            time.sleep(0.01)

    threads = [threading.Thread(target=load, args=(node,)) for node in survivors]
    for thread in threads:
        thread.start()
    try:
        old = flock.wait_for_leader()
        leader.kill()
        before = len(answered)
        assert flock.wait_for_new_leader(old, 40) != old
        now = flock.read(survivors[0], f"/v1/jobs/{job}?consistency=linearizable")
        assert now["progress"]["trials_done"] >= done
        ended = flock.wait_for_job(job)
        wait_for("predictions", lambda: len(answered) > before + 50, 60)
    finally:
        stop.set()
        for thread in threads:
            thread.join(40)
    assert failures == []
    assert (ended["state"], ended["resumed"]) == ("succeeded", 1)
    assert comparable(flock.leaderboard(job)) == comparable(flock.leaderboard(undisturbed))
    flock.wait_ready()
    flock.wait_for_voters(3)


def test_leaders_die_and_each_time_writes_are_accepted_again(flock: Flock) -> None:
    """How soon, on a quiet machine, is a benchmark's: `python -m benchmarks.scale election`. Here elections count."""
    before = term(flock, flock.nodes[0])
    acknowledged = set()
    for number in range(KILLS):
        flock.wait_ready()
        flock.wait_for_voters(3)
        leader = flock.by_id(flock.wait_for_leader())
        survivors = [node for node in flock.nodes if node.name != leader.name]
        leader.kill()
        body = {"name": f"t{number}", "role": "viewer"}
        wait_for(
            "an accepted write",
            lambda survivors=survivors, body=body: any(  # type: ignore[misc]
                flock.ask(node, "POST", "/v1/tokens", body).status == 201 for node in survivors
            ),
            40,
        )
        acknowledged.add(body["name"])
    flock.wait_ready()
    kept = flock.ask(flock.nodes[0], "GET", "/v1/tokens?consistency=linearizable").body["tokens"]
    assert {token["name"] for token in kept} >= acknowledged
    assert KILLS <= term(flock, flock.nodes[0]) - before <= KILLS * MOST_TERMS


def test_predictions_go_on_without_a_quorum_and_writes_say_so(flock: Flock) -> None:
    flock.wait_ready()
    flock.wait_for_voters(3)
    lonely, *others = flock.nodes
    for node in others:
        node.pause()
    try:
        wait_for("the loss to be noticed", lambda: flock.view(lonely)["quorum"] is False, 40)
        assert predict(flock, lonely).status == 200
        # A front hears of it with the agent's next word, within a second.
        stale = wait_for("stale answers", lambda: predict(flock, lonely).headers.get("x-parvada-stale"), 40)
        assert float(stale) >= 0
        read = flock.ask(lonely, "GET", "/v1/datasets/iris")
        assert read.status == 200
        assert "x-parvada-stale" in read.headers
        write = flock.ask(lonely, "POST", "/v1/tokens", {"name": "late", "role": "viewer"}, timeout=30)
        assert (write.status, write.body["code"]) == (503, "no_quorum")
        assert "retry-after" in write.headers
        assert flock.view(lonely)["alarms"][0]["code"] == "no_quorum"
    finally:
        for node in others:
            node.resume()
    flock.wait_for_leader()
    flock.wait_for_voters(3)
