"""Shares move when a node dies, and uploads stay small in memory whatever their size."""

from pathlib import Path

import pytest

from tests.support.flock import Flock, running
from tests.support.memory import Watch, settled
from tests.support.tables import stream
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

FIRST, SMALL, LARGE = 5_000_000, 20_000_000, 100_000_000


def test_the_share_of_a_dead_node_moves_and_tells_how_far(tmp_path: Path) -> None:
    """Four nodes and three copies: who is left gets what the dead one had (that it keeps to its pace, and how it comes
    on in the middle of a transfer, is shown in virtual time and with the wires alone)."""
    settings = {
        "PARVADA_AWAY_AFTER_SECONDS": "3",
        "PARVADA_REPAIR_MB_PER_SECOND": "2",
        "PARVADA_FRONTS": "1",
    }
    with running(tmp_path / "data", 4, restart=False, environment=settings) as flock:
        first = flock.nodes[0]
        for number in range(4):
            body = b"".join(stream(3_000_000 + number, start=number * 100))
            flock.push(first, f"data-{number}", body, "?target=label")
        names = [f"data-{number}" for number in range(4)]

        def copies() -> dict[str, set[str]]:
            shown = [flock.ask(first, "GET", f"/v1/datasets/{name}").body["holders"] for name in names]
            return {digest: set(found) for holders in shown for digest, found in holders.items()}

        wait_for("three copies of all", lambda: all(len(found) >= 3 for found in copies().values()), 60)
        before = copies()
        ids = {node["name"]: node["id"] for node in flock.view(first)["nodes"]}
        dead = max(flock.nodes[1:], key=lambda node: sum(ids[node.name] in found for found in before.values()))
        moving = {digest for digest, found in before.items() if ids[dead.name] in found}
        assert moving
        dead.kill()
        living = {ids[node.name] for node in flock.nodes if node is not dead}
        wait_for(
            "three living copies of all again",
            lambda: all(len(found & living) == 3 for found in copies().values()),
            90,
        )
        alive = [node for node in flock.nodes if node is not dead]

        def owed() -> int:
            return sum(node["blobs"]["owed"] for node in flock.view(first)["nodes"] if node["id"] in living)

        wait_for("nothing to be owed", lambda: owed() == 0, 60)
        said = "".join(flock.log(node) for node in alive)
        assert "repair.progress" in said
        assert "bytes_left=0" in said


def test_what_an_upload_takes_in_memory_does_not_grow_with_it(tmp_path: Path) -> None:
    """And it is on two nodes. `python -m benchmarks.blobs stream` shows the same for 2 GB."""
    with running(tmp_path / "data", 3, environment={"PARVADA_FRONTS": "1"}) as flock:
        pids = {node.name: pid for node in flock.nodes if (pid := node.pid)}
        settled(pids)
        upload(flock, pids, FIRST)  # what it starts and loads stays
        extra = {size: upload(flock, pids, size) for size in (SMALL, LARGE)}
        assert extra[LARGE] < extra[SMALL] + (LARGE - SMALL) / 2, extra


def upload(flock: Flock, pids: dict[str, int], size: int) -> int:
    """The most bytes that a node took beyond what it had before."""
    with Watch(pids, every=0.05) as watch:
        query = f"/v1/datasets/of-{size}?target=label&format=csv"
        answer = flock.ask(flock.nodes[0], "PUT", query, stream(size), timeout=180.0)
    assert answer.status == 201, answer
    assert answer.body["rows"] > size / 1000
    assert all(len(found) >= 2 for found in answer.body["holders"].values())
    assert watch.samples >= 5 or size < LARGE
    return max(watch.beyond(name) for name in pids)
