"""A majority lost for good: writes stop, `parvada cluster recover` goes on with one node, and new ones may join."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.data import iris_csv
from tests.support.flock import Flock, running
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


def recover(data: Path, slot: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "parvada", "cluster", "recover", "--data", str(data), "--slot", slot, "--yes"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_one_node_goes_on_after_the_others_are_lost(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data, 3, restart=False) as flock:
        survivor = flock.node("node-1")
        flock.push(survivor, "iris", iris_csv(), "?target=species")
        job = flock.submit(survivor, {"datasets": ["iris"], "models": ["GaussianNB"], "seed": 1})
        assert flock.wait_for_job(job)["state"] == "succeeded"
        # Everything is to be here before the others go.
        wait_for("all three to hold all", lambda: _same_index(flock))
        refused = recover(data, "1")
        assert refused.returncode == 1
        assert "in use" in refused.stderr
        old = flock.view(survivor)["cluster_id"]
        for name in ("node-2", "node-3"):
            flock.by_id(_id(flock, name)).kill()
        wait_for("the loss to be noticed", lambda: not flock.view(survivor)["quorum"])
        put = flock.ask(survivor, "PUT", "/v1/datasets/more?target=species", iris_csv(), timeout=60.0)
        assert put.status == 503, put
    done = recover(data, "1")
    assert done.returncode == 0, done.stderr
    assert "are gone" in done.stderr
    with running(data, 1, restart=False) as lone:
        node = lone.node("node-1")
        view = lone.view(node)
        assert view["cluster_id"] != old
        assert [each["name"] for each in view["nodes"]] == ["node-1"]
        assert lone.ask(node, "GET", "/v1/datasets/iris").status == 200
        row = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
        answer = lone.wait_for_answer(node, "POST", "/v1/models/iris/predict", {"rows": [row]})
        assert "setosa" in str(answer.body)
        lone.push(node, "more", iris_csv(), "?target=species")
    # A lost node that is started after all does not take part, nor does it disturb.
    again = Flock(data, 2, restart=False)
    again.start()
    try:
        told = data / "up.log"
        wait_for("node-2 to be told", lambda: "node-2 was removed from the cluster" in told.read_text(), 60)
        node = again.node("node-1")
        wait_for("node-1 to have a quorum", lambda: again.view(node)["quorum"], 60)
        again.push(node, "last", iris_csv(), "?target=species")
    finally:
        again.stop()


def _same_index(flock: Flock) -> bool:
    return len({flock.view(node)["applied_index"] for node in flock.nodes}) == 1


def _id(flock: Flock, name: str) -> str:
    return str(next(node["id"] for node in flock.view(flock.nodes[0])["nodes"] if node["name"] == name))
