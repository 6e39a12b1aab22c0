"""Bytes that rot on one disk are mended from another; a node that is removed is cut off at once, and ends."""

import contextlib
import hashlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.data import iris_csv
from tests.support.flock import Flock, LocalNode, running
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240), pytest.mark.random_order(disabled=True)]

ESTABLISHED = "01"


@pytest.fixture(scope="module")
def flock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flock]:
    """Three voters and a learner; every blob is read again every two seconds."""
    settings = {
        "PARVADA_MAX_VOTERS": "3",
        "PARVADA_COPIES": "4",
        "PARVADA_SCRUB_HOURS": "0.0006",
        "PARVADA_FRONTS": "1",
    }
    with running(tmp_path_factory.mktemp("integrity") / "data", 4, environment=settings) as started:
        yield started


def blobs_of(node: LocalNode) -> list[Path]:
    return sorted((node.data / "blobs").glob("[0-9a-f][0-9a-f]/*"))


def sound(path: Path) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == path.name


def flip(path: Path) -> None:
    """As a disk does it: no newer time, no other size, and no word."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x01
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_flipped_byte_is_found_and_mended(flock: Flock) -> None:
    flock.push(flock.nodes[0], "iris", iris_csv(), "?target=species")

    def kept() -> bool:
        return sum(len(blobs_of(node)) for node in flock.nodes) == 4

    wait_for("a copy on every node", kept)
    victim = next(node for node in flock.nodes if blobs_of(node))
    assert isinstance(victim, LocalNode)
    path = blobs_of(victim)[0]
    assert sound(path)
    flip(path)
    assert not sound(path)
    wait_for("the copy to be sound again", lambda: sound(path), 60)
    assert "blob.corrupt" in flock.log(victim)
    wait_for(
        "nothing to be owed",
        lambda: all(node["blobs"]["owed"] == 0 for node in flock.view(flock.nodes[0])["nodes"]),
    )
    wait_for("no alarm", lambda: flock.view(flock.nodes[0])["alarms"] == [])


def peer_connections(pid: int, ports: set[int]) -> int:
    """Established TCP connections of a process from or to one of these ports."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            inodes.add(str(entry.readlink()).removeprefix("socket:[").removesuffix("]"))
    found = 0
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ends = {int(fields[column].rpartition(":")[2], 16) for column in (1, 2)}
        found += fields[3] == ESTABLISHED and fields[9] in inodes and bool(ends & ports)
    return found


def alive(flock: Flock, node: LocalNode) -> list[str]:
    return [each["id"] for each in flock.view(node)["nodes"] if each["state"] == "alive"]


def seconds_until(what: str, reached: Callable[[], bool]) -> float:
    begun = time.monotonic()
    wait_for(what, reached, 60, every=0.01)
    return time.monotonic() - begun


def test_a_removed_node_is_cut_off_long_before_its_silence_would_tell_and_ends(flock: Flock) -> None:
    view = flock.view(flock.nodes[0])
    assert len(view["learners"]) == 1
    removed = flock.by_id(view["learners"][0])
    others = [node for node in flock.nodes if node is not removed]
    listed = json.loads((flock.data / "ports.json").read_bytes())
    ports = {entry[kind] for entry in listed for kind in ("peer", "raft")}
    pid = removed.pid
    assert pid is not None
    wait_for("its connections", lambda: peer_connections(pid, ports) >= 3)
    links = {entry["raft"] for entry in listed}
    whole = peer_connections(pid, links)
    # Stopped, it cannot close anything itself: what disappears, the others have cut. At first for its silence alone.
    removed.signal(signal.SIGSTOP)
    try:
        patience = seconds_until("the first to be given up", lambda: peer_connections(pid, links) < whole)
    finally:
        removed.signal(signal.SIGCONT)
    wait_for("its connections to be back", lambda: peer_connections(pid, links) >= whole)
    wait_for("it to be seen", lambda: view["learners"][0] in alive(flock, others[0]))
    removed.signal(signal.SIGSTOP)
    try:
        answer = flock.ask(others[0], "DELETE", f"/v1/nodes/{view['learners'][0]}", timeout=60.0)
        assert answer.status == 200, answer
        took = seconds_until("its connections to be cut", lambda: peer_connections(pid, ports) == 0)
        assert took < patience / 2
    finally:
        removed.signal(signal.SIGCONT)
    wait_for("it to give up", lambda: removed.pid is None, 60)
    assert "node.removed" in flock.log(removed)
    told, up_log = f"{removed.name} was removed from the cluster; stays away", flock.data / "up.log"
    wait_for("`up` to say so", lambda: told in up_log.read_text())
    for node in others:
        seen = flock.view(node)
        assert seen["quorum"]
        assert view["learners"][0] not in [member["id"] for member in seen["nodes"]]
    flock.push(others[0], "after", iris_csv(), "?target=species")
