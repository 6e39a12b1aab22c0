"""Bytes on nodes that were not given them: fetched when they are needed."""

from pathlib import Path

import pytest

from tests.support.data import iris_csv
from tests.support.flock import running

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def test_a_node_without_the_model_fetches_it_to_answer(tmp_path: Path) -> None:
    """With one copy kept, a version that no alias names is on its owner only."""
    with running(tmp_path / "data", 3, environment={"PARVADA_COPIES": "1"}) as flock:
        flock.push(flock.nodes[0], "iris", iris_csv(), "?target=species")
        for models in (["GaussianNB"], ["DummyClassifier"]):  # the second is worse: published, but not served
            job = flock.submit(flock.nodes[0], {"datasets": ["iris"], "models": models})
            assert flock.wait_for_job(job)["state"] == "succeeded"
        version = flock.ask(flock.nodes[0], "GET", "/v1/models/iris/versions/2").body
        assert version["aliases"] == []
        blob = f"blobs/{version['digest'][:2]}/{version['digest']}"
        without = [node for node in flock.nodes if not (node.data / blob).exists()]
        assert without, "every node has it already: nothing to test"
        answer = flock.wait_for_answer(without[0], "POST", "/v1/models/iris/versions/2/predict", {"rows": [ROW]})
        assert answer.body["version"] == 2
        assert (without[0].data / blob).exists()
