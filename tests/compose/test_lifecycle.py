"""What people do to a project that runs: restart it, make its containers anew, take it down and up, scale it. The same
nodes come back with the same data. Without Ray, which the journey has."""

from collections.abc import Callable, Iterator

import pytest

from tests.compose.conftest import QUICK, Started
from tests.compose.test_journey import ROW, ids
from tests.support.compose import Compose
from tests.support.data import iris_csv

pytestmark = [pytest.mark.compose, pytest.mark.timeout(300), pytest.mark.random_order(disabled=True)]


@pytest.fixture(scope="module")
def flock(project: Started) -> Iterator[Compose]:
    """Three nodes that serve a model."""
    with project("parvadalife", PARVADA_RAY="off", **QUICK) as started:
        started.wait_for_voters(3)
        started.push(started.nodes[0], "iris", iris_csv(), "?target=species")
        job = started.submit(started.nodes[1], {"datasets": ["iris"], "models": ["GaussianNB"], "seed": 7})
        assert started.wait_for_job(job)["state"] == "succeeded"
        for node in started.nodes:
            started.wait_for_answer(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]})
        yield started


@pytest.mark.parametrize(
    "again",
    [
        pytest.param(lambda flock: flock.compose("restart"), id="restart"),
        pytest.param(lambda flock: flock.up(3, ["--force-recreate"]), id="force-recreate"),
        pytest.param(lambda flock: (flock.down(), flock.up(3)), id="down-up"),
    ],
)
def test_the_same_nodes_and_data_come_back(flock: Compose, again: Callable[[Compose], object]) -> None:
    before = ids(flock)
    cluster = flock.view(flock.living[0])["cluster_id"]
    again(flock)
    flock.wait_ready()
    flock.wait_for_leader()
    flock.wait_for_voters(3)
    assert ids(flock) == before
    assert flock.view(flock.living[0])["cluster_id"] == cluster
    for node in flock.nodes:
        answer = flock.ask(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]})
        assert answer.body["predictions"] == ["setosa"]
        assert flock.ask(node, "GET", "/v1/datasets/iris").status == 200


@pytest.mark.parametrize("scale", [5, 3, 1, 2])
def test_scaling_up_and_down_keeps_a_working_cluster(flock: Compose, scale: int) -> None:
    flock.up(scale)
    flock.wait_for_voters(scale)
    name = f"scale-{scale}"
    assert flock.push(flock.living[0], name, iris_csv(), "?target=species")["version"] == 1
    for node in flock.living:
        answer = flock.ask(node, "POST", "/v1/models/iris/predict", {"rows": [ROW]})
        assert answer.body["predictions"] == ["setosa"]
