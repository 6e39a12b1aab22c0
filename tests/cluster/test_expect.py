"""Several hosts with nothing shared but the secret: PARVADA_EXPECT decides who forms."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.secret import make_secret
from node.up import NodePorts, _free_ports
from tests.support.http import request
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


class Host:
    """One agent with a data folder of its own."""

    def __init__(self, folder: Path, number: int, ports: NodePorts, environment: dict[str, str]) -> None:
        self.folder, self.url = folder / f"host-{number}", f"http://127.0.0.1:{ports.api}"
        self.folder.mkdir()
        shutil.copy(folder / "secret", self.folder / "secret")
        (self.folder / "secret").chmod(0o600)
        self.environment = {
            **os.environ,
            "PARVADA_DATA": str(self.folder),
            "PARVADA_SHARED": "off",
            "PARVADA_SLOT": "1",
            "PARVADA_NODE_NAME": f"host-{number}",
            "PARVADA_HOST": "127.0.0.1",
            "PARVADA_PEER_HOST": "127.0.0.1",
            "PARVADA_ADVERTISE": "127.0.0.1",
            "PARVADA_MDNS": "off",
            "PARVADA_RAY": "off",
            "PARVADA_FRONTS": "1",
            "PARVADA_CPUS": "1",
            "PARVADA_PORT": str(ports.api),
            "PARVADA_PEER_PORT": str(ports.peer),
            "PARVADA_RAFT_PORT": str(ports.raft),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "parvada", "node"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
            )

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def view(self) -> dict[str, Any] | None:
        answer = request("GET", f"{self.url}/v1/cluster", timeout=3.0)
        return answer.body if answer.status == 200 else None


@contextlib.contextmanager
def hosts(folder: Path, count: int, seeds: list[list[int]] | None = None, **environment: str) -> Iterator[list[Host]]:
    """Not started yet. `seeds` are the hosts that each knows; by default all the others."""
    make_secret(folder / "secret")
    numbers = _free_ports(4 * count)
    ports = [NodePorts(*numbers[4 * node : 4 * node + 4]) for node in range(count)]
    known = seeds or [[other for other in range(count) if other != number] for number in range(count)]
    made = [
        Host(
            folder,
            number,
            ports[number],
            {"PARVADA_SEEDS": ",".join(f"127.0.0.1:{ports[other].peer}" for other in known[number])} | environment,
        )
        for number in range(count)
    ]
    try:
        yield made
    finally:
        for host in made:
            host.stop()


def members(host: Host) -> int:
    view = host.view()
    return len(view["nodes"]) if view else 0


def test_two_of_three_form_and_the_third_joins_later(tmp_path: Path) -> None:
    with hosts(tmp_path, 3, PARVADA_EXPECT="3") as (first, second, third):
        first.start()
        wait_for("the first to wait for a majority", lambda: "1 of 3 expected nodes in sight" in first.log, 30)
        second.start()
        for host in (first, second):
            wait_for("a cluster of two", lambda host=host: members(host) == 2, 40)  # type: ignore[misc]
        third.start()
        wait_for("a cluster of three", lambda: members(third) == 3, 40)
        views = [host.view() for host in (first, second, third)]
        assert len({view["cluster_id"] for view in views if view}) == 1
        assert sorted(view["formation"] for view in views if view) == ["expected", "joined", "joined"]


def test_three_at_once_form_one_cluster(tmp_path: Path) -> None:
    with hosts(tmp_path, 3, PARVADA_EXPECT="3") as started:
        for host in started:
            host.start()
        for host in started:
            wait_for("a cluster of three", lambda host=host: members(host) == 3, 40)  # type: ignore[misc]
        assert len({view["cluster_id"] for view in (host.view() for host in started) if view}) == 1


def test_two_clusters_under_one_secret_raise_the_alarm_on_both_sides(tmp_path: Path) -> None:
    """Formed apart, since neither knew of the other; then one learns of the other's address."""
    with hosts(tmp_path, 2, [[1], []], PARVADA_EXPECT="1") as (first, second):
        for host in (first, second):
            host.environment["PARVADA_SEEDS"], seeds = "", host.environment["PARVADA_SEEDS"]
            host.start()
            wait_for("a cluster of one", lambda host=host: members(host) == 1, 40)  # type: ignore[misc]
            if host is first:
                host.stop()
                host.environment["PARVADA_SEEDS"] = seeds
        first.start()
        for host in (first, second):
            wait_for("the alarm", lambda host=host: _split(host), 40)  # type: ignore[misc]
        assert members(first) == members(second) == 1


def _split(host: Host) -> bool:
    view = host.view()
    return view is not None and any(alarm["code"] == "split" for alarm in view["alarms"])
