"""Results of jobs that have ended: from any node, also when those that trained them are gone; pages; deletion."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.data import iris_csv
from tests.support.flock import Flock, LocalNode, running
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300), pytest.mark.random_order(disabled=True)]

DEPTHS = list(range(1, 31))
LARGE = {
    "datasets": ["iris"],
    "models": [{"estimator": "DecisionTreeClassifier", "search": {"max_depth": DEPTHS}}],
    "cv": {"folds": 2},
    "publish": {"when": "never"},
}
"""More candidates than stay in the state when the job is sealed."""
KEPT = 4


@pytest.fixture(scope="module")
def flock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flock]:
    folder: Path = tmp_path_factory.mktemp("flock")
    with running(folder / "data", 3, environment={"PARVADA_JOBS_KEPT": str(KEPT)}) as started:
        started.push(started.nodes[0], "iris", iris_csv(), "?target=species")
        yield started


def rows(flock: Flock, node: LocalNode, job: str) -> Any:
    return flock.read(node, f"/v1/jobs/{job}/leaderboard")["rows"]


def sealed(flock: Flock, node: LocalNode, job: str) -> bool:
    return bool(flock.read(node, f"/v1/jobs/{job}")["sealed"])


def test_a_leaderboard_answers_from_any_node_also_without_those_that_trained(flock: Flock) -> None:
    job = flock.submit(flock.nodes[0], LARGE)
    assert flock.wait_for_job(job)["state"] == "succeeded"
    wait_for("the seal", lambda: all(sealed(flock, node, job) for node in flock.nodes), 60)
    expected = rows(flock, flock.nodes[0], job)
    assert sorted(row["params"]["max_depth"] for row in expected) == DEPTHS
    assert [row["rank"] for row in expected] == DEPTHS
    assert all(len(row["folds"]) == 2 for row in expected)
    head = flock.leader_that_trains()
    head.kill()
    for node in flock.nodes:
        if node.name != head.name:
            assert rows(flock, node, job) == expected
    flock.wait_ready()
    assert all(rows(flock, node, job) == expected for node in flock.nodes)


def test_the_oldest_go_and_the_rest_is_listed_in_pages(flock: Flock) -> None:
    quick = {"datasets": ["iris"], "models": ["GaussianNB"], "cv": {"folds": 2}, "publish": {"when": "never"}}
    made = [flock.submit(flock.nodes[number % 3], quick) for number in range(KEPT + 2)]
    for job in made:
        flock.wait_for_job(job)
    node = flock.nodes[1]
    wait_for("the oldest to go", lambda: len(flock.read(node, "/v1/jobs")["jobs"]) == KEPT, 60)
    listed: list[str] = []
    after = ""
    while True:
        page = flock.read(node, f"/v1/jobs?limit=3{after}")
        listed += [job["id"] for job in page["jobs"]]
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert listed == [job["id"] for job in flock.read(node, "/v1/jobs")["jobs"]]
    assert set(listed) < set(made)
    assert len(listed) == KEPT
    assert flock.ask(flock.nodes[2], "DELETE", f"/v1/jobs/{listed[0]}").status == 200
    gone = flock.ask(flock.nodes[0], "GET", f"/v1/jobs/{listed[0]}/leaderboard?consistency=linearizable")
    assert gone.status == 404
