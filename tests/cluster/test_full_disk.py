"""One node's disk fills up: it refuses uploads and says so, hands its leadership over, serves on, and recovers."""

import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.data import iris_csv, wine_csv
from tests.support.flock import Flock, LocalNode, running
from tests.support.http import Answer
from tests.support.wait import wait_for

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(180),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root"),
]

RESERVE_MB = 16
HEADER, FIRST_ROW = (line.split(",")[:-1] for line in wine_csv().decode().splitlines()[:2])
WINE = dict(zip(HEADER, map(float, FIRST_ROW), strict=True))
CSV = {"Content-Type": "text/csv"}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """The folder of a flock whose second node has a disk of 96 MB."""
    slot = tmp_path / "data" / "slots" / "2"
    slot.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(slot)], check=False)
    if mounted.returncode != 0:
        assert os.environ.get("CI") != "true", "CI must be able to mount a tmpfs: the full disk would go untested"
        pytest.skip("cannot mount a tmpfs here")
    try:
        yield tmp_path / "data"
    finally:
        subprocess.run(["umount", "-l", str(slot)], check=True)


def fill(path: Path, leave: int) -> None:
    """Write zeros until so many bytes are free; 0 = until the disk refuses."""
    with path.open("ab", buffering=0) as file:
        while (left := _free(path.parent) - leave) > 0:
            try:
                file.write(bytes(min(left, 1 << 20)))
            except OSError:  # nothing is left
                return


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def alarms(flock: Flock, node: LocalNode) -> list[str]:
    return [f"{alarm['code']}: {alarm['message']}" for alarm in flock.view(node)["alarms"]]


def told(flock: Flock, name: str) -> bool:
    """Every node says that this one is full."""
    seen = (alarms(flock, node) for node in flock.nodes)
    return all(any(alarm.startswith(f"disk_full: {name} ") for alarm in found) for found in seen)


def held_by(flock: Flock, node: LocalNode, dataset: str) -> list[str]:
    """The nodes that hold its only part."""
    (holders,) = flock.ask(node, "GET", f"/v1/datasets/{dataset}?consistency=linearizable").body["holders"].values()
    return list(holders)


def publish(flock: Flock, node: LocalNode, model: str) -> None:
    spec = {"datasets": ["wine"], "models": ["GaussianNB"], "publish": {"model": model}}
    assert flock.wait_for_job(flock.submit(node, spec))["state"] == "succeeded"


def predict(flock: Flock, node: LocalNode, model: str) -> Answer:
    return flock.ask(node, "POST", f"/v1/models/{model}/predict", {"rows": [WINE]})


def test_a_disk_that_fills_up_and_is_freed(small: Path) -> None:
    settings = {"PARVADA_DISK_RESERVE_MB": str(RESERVE_MB), "PARVADA_FRONTS": "1"}
    with running(small, 3, environment=settings) as flock:
        other, full = flock.nodes[:2]
        flock.push(other, "before", iris_csv(), "?target=species")
        me = next(node["id"] for node in flock.view(other)["nodes"] if node["name"] == full.name)
        assert flock.ask(other, "POST", "/v1/cluster/transfer", {"to": me}).status == 200
        wait_for("it to lead", lambda: flock.view(full)["leader"] == me)
        wait_for("its copy", lambda: me in held_by(flock, other, "before"))

        # No room for blobs: it refuses uploads, others place their copies elsewhere, and the log goes on.
        fill(full.data / "fill", (RESERVE_MB - 2) << 20)
        answer = flock.ask(full, "PUT", "/v1/datasets/refused?target=cultivar", wine_csv(), headers=CSV)
        assert (answer.status, answer.body["code"]) == (503, "disk_full"), answer
        assert answer.headers["retry-after"]
        assert answer.body["details"]["node"] == full.name
        assert list((full.data / "tmp").iterdir()) == []
        wait_for("everybody to know", lambda: told(flock, full.name))
        flock.push(other, "wine", wine_csv(), "?target=cultivar")
        holders = held_by(flock, other, "wine")
        assert len(holders) == 2
        assert me not in holders
        assert flock.view(full)["leader"] == me
        assert flock.ask(other, "GET", "/v1/datasets/refused").status == 404

        # It goes on with its own work: a model that is served, and data that it is asked for, come from the others.
        publish(flock, other, "first")
        wait_for("its model", lambda: predict(flock, full, "first").status == 200)
        assert flock.ask(full, "GET", "/v1/datasets/wine/preview?rows=1").status == 200
        fill(full.data / "fill", (RESERVE_MB // 2 - 4) << 20)
        publish(flock, other, "second")
        wait_for("it to know the model", lambda: predict(flock, full, "second").status != 404)
        answer = predict(flock, full, "second")
        if next(node for node in flock.view(other)["nodes"] if node["id"] == me)["ray_head"]:  # the model was made here
            assert answer.status == 200
        else:
            assert (answer.status, answer.body["code"]) == (503, "not_ready"), answer
            assert "disk is full" in answer.body["error"]
        assert predict(flock, full, "first").status == 200

        # No room for the log either: it hands over, and serves what it has.
        fill(full.data / "fill", 0)

        attempts, acknowledged = itertools.count(), list[str]()

        def another_leads() -> bool:
            """The last page of its journal may take a few more entries. What is acknowledged must stay."""
            name = f"during-{next(attempts)}"
            answer = flock.ask(other, "PUT", f"/v1/datasets/{name}?target=species", iris_csv(), headers=CSV, timeout=15)
            if answer.status == 201:
                acknowledged.append(name)
            return flock.view(other)["leader"] not in (None, me)

        wait_for("another leader", another_leads, 60)
        before = len(acknowledged)
        wait_for("a write", lambda: another_leads() and len(acknowledged) > before, 60)
        assert flock.ask(full, "GET", "/v1/datasets/before/preview?rows=1").status == 200
        assert flock.ask(full, "GET", "/healthz").status == 200

        # Room again: it takes part in everything.
        (full.data / "fill").unlink()
        wait_for("the alarms to end", lambda: not any(alarms(flock, node) for node in flock.nodes), 60)
        flock.push(full, "after", iris_csv() + iris_csv().split(b"\n")[1] + b"\n", "?target=species")
        wait_for("its share", lambda: all(node["blobs"]["owed"] == 0 for node in flock.view(other)["nodes"]), 60)
        wait_for("its model", lambda: predict(flock, full, "second").status == 200)
        for name in ("before", "wine", "after", *acknowledged):
            assert flock.wait_for_answer(full, "GET", f"/v1/datasets/{name}/preview?rows=1").body
