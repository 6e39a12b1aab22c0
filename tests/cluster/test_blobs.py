"""Bytes on nodes that were not given them are fetched when needed; what nobody refers to goes, and what is lost is
said."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.data import diabetes_csv, iris_csv, wine_csv
from tests.support.flock import Flock, LocalNode, running
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
GRACE = 4.0


def paths(flock: Flock, dataset: dict[str, Any]) -> dict[str, list[Path]]:
    """The files of each part of a dataset, wherever they are."""
    folders = [node.data / "blobs" for node in flock.nodes]
    every = {digest: [folder / digest[:2] / digest for folder in folders] for digest in dataset["holders"]}
    return {digest: [path for path in found if path.exists()] for digest, found in every.items()}


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


# ---------------------------------------------------------------- few copies, little patience
@pytest.fixture(scope="module")
def sparse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flock]:
    """One copy of everything, read again every two seconds, dropped seconds after nothing refers to it."""
    settings = {
        "PARVADA_COPIES": "1",
        "PARVADA_SCRUB_HOURS": "0.0006",
        "PARVADA_GRACE_SECONDS": str(GRACE),
        "PARVADA_FRONTS": "1",
    }
    with running(tmp_path_factory.mktemp("sparse") / "data", 3, environment=settings) as started:
        yield started


def test_what_nothing_refers_to_goes_and_what_came_again_stays(sparse: Flock) -> None:
    first = sparse.nodes[0]
    gone = sparse.push(first, "iris", iris_csv(), "?target=species")
    kept = sparse.push(first, "wine", wine_csv(), "?target=cultivar")
    for name in ("iris", "wine"):
        assert sparse.ask(first, "DELETE", f"/v1/datasets/{name}").status == 200
    # The same bytes within the grace of their deletion, at another node and under another name.
    again = sparse.push(sparse.nodes[1], "again", wine_csv(), "?target=cultivar")
    assert set(again["holders"]) == set(kept["holders"])
    wait_for("the deleted dataset's bytes to go", lambda: not any(paths(sparse, gone).values()), 60)
    assert all(paths(sparse, again).values())
    for node in sparse.nodes:
        assert sparse.wait_for_answer(node, "GET", "/v1/datasets/again/preview?rows=1").body
    assert sparse.view(first)["alarms"] == []


def test_a_last_copy_that_rots_is_an_alarm_until_the_bytes_are_back(sparse: Flock) -> None:
    first = sparse.nodes[0]
    made = sparse.push(first, "diabetes", diabetes_csv(), "?target=progression")

    def alone() -> list[Path] | None:
        (found,) = paths(sparse, made).values()
        return found if len(found) == 1 else None

    (path,) = wait_for("the one copy to be where it belongs", alone, 60)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    path.write_bytes(content)

    def lost(node: LocalNode) -> list[str]:
        return [alarm["message"] for alarm in sparse.view(node)["alarms"] if alarm["code"] == "blob_lost"]

    for node in sparse.nodes:
        (message,) = wait_for("the alarm", lambda node=node: lost(node), 60)  # type: ignore[misc]
        assert "dataset diabetes 1" in message
    sparse.push(sparse.nodes[2], "diabetes", diabetes_csv(), "?target=progression")
    for node in sparse.nodes:
        wait_for("the alarm to end", lambda node=node: not lost(node), 60)  # type: ignore[misc]
        assert sparse.wait_for_answer(node, "GET", "/v1/datasets/diabetes/preview?rows=1").body
