"""A node drains, comes back, and leaves for good: it loses nothing, and serves until the end."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.band import Band, BandNode, band
from tests.support.data import iris_csv
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]

REMOVED = 4
"""The exit code of a node that was removed for good."""
ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def test_a_node_drains_comes_back_and_leaves(tmp_path: Path) -> None:
    with band(tmp_path, 4, PARVADA_COPIES="2") as cluster:
        cluster.grow(4)
        cluster.settle(4, 3)
        train(cluster)
        node = cluster.leader_that_trains()

        drained = parvada(cluster, node, "drain", node.name, "--wait", "--json")
        assert (drained["state"], drained["drain"]["blobs"], drained["drain"]["done"]) == ("draining", 0, True)
        wait_for("its vote to go to the learner", lambda: shown(cluster, node)["role"] == "learner", 60)
        assert len(cluster.view(node)["voters"]) == 3
        predict(cluster, node)
        cluster.push(node, "later", iris_csv() + b"5.0,3.0,1.0,0.1,setosa\n", "?target=species")
        held = cluster.ask(node, "GET", "/v1/datasets/later").body["holders"]
        assert all(len(set(holders) - {cluster.id_of(node)}) == 2 for holders in held.values())

        # Its word outlasts its absence: it is still drained when it comes back.
        cluster.shrink([node])
        node.start()
        cluster.wait_ready()
        wait_for("it to be seen", lambda: shown(cluster, node)["state"] not in ("suspect", "dead"), 60)
        assert shown(cluster, node)["state"] == "draining"
        parvada(cluster, node, "undrain", node.name, "--json")
        wait_for("it to be active", lambda: shown(cluster, node)["state"] == "alive", 60)

        # For good: it says how far it is, ends by itself, and stays out.
        gone = parvada(cluster, node, "leave", "--yes", "--json")
        assert (gone["name"], gone["removed"]) == (node.name, True)
        assert node.wait() == REMOVED
        cluster.settle(3, 3)
        assert node.name not in {each["name"] for each in cluster.view(cluster.living[0])["nodes"]}
        node.start()
        assert node.wait() == REMOVED
        assert "to come back as a new node, move" in node.log
        for survivor in cluster.living:
            predict(cluster, survivor)
            cluster.wait_for_answer(survivor, "GET", "/v1/datasets/later/preview?rows=1")
        wait_for("no alarm", lambda: cluster.view(cluster.living[0])["alarms"] == [])


def train(cluster: Band) -> None:
    cluster.push(cluster.living[0], "iris", iris_csv(), "?target=species")
    job = cluster.submit(cluster.living[0], {"datasets": ["iris"], "models": ["GaussianNB"], "seed": 1})
    assert cluster.wait_for_job(job)["state"] == "succeeded"


def predict(cluster: Band, node: BandNode) -> None:
    cluster.wait_for_answer(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]})


def shown(cluster: Band, node: BandNode) -> dict[str, Any]:
    """The node as another one shows it."""
    other = next(each for each in cluster.living if each is not node)
    found: dict[str, Any] = next(each for each in cluster.view(other)["nodes"] if each["name"] == node.name)
    return found


def parvada(cluster: Band, node: BandNode, *arguments: str) -> Any:
    """`parvada node …` on that node's machine."""
    done = subprocess.run(
        [sys.executable, "-m", "parvada", "node", *arguments, "--url", node.url, "--data", str(cluster.data)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
