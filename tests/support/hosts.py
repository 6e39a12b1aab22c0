"""Agents as on hosts of their own: each with a data folder and ports of its own, or around one shared data folder; all
on loopback, or each in a place of its own in a network.

What `parvada up` decides for its nodes (who seeds whom, what arbitrates) is here for a test to say.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from node.identity.secret import make_secret
from node.up import NodePorts
from tests.support import node_logs
from tests.support.http import Answer, request
from tests.support.network import Network, Place
from tests.support.ports import lent
from tests.support.wait import wait_for

LOOPBACK = "127.0.0.1"
STOP_SECONDS = 30.0


def rule(number: int, nodes: int) -> dict[str, str]:
    """The settings under which formation goes by this rule: 1 a shared volume, 2 a known number, 3 neither."""
    return {
        1: {"PARVADA_SHARED": "on"},
        2: {"PARVADA_SHARED": "off", "PARVADA_EXPECT": str(nodes)},
        3: {"PARVADA_SHARED": "off"},
    }[number]


class Host:
    """One agent; `start` and `stop` any number of times."""

    def __init__(
        self,
        folder: Path,
        number: int,
        ports: NodePorts,
        environment: Mapping[str, str],
        place: Place | None = None,
    ) -> None:
        self.name, self.ports, self._place = f"host-{number}", ports, place
        self.address = place.address if place is not None else LOOPBACK
        self.data = Path(environment.get("PARVADA_DATA", folder / self.name))
        self._log_path = folder / f"{self.name}.log"
        if not self.data.exists():
            self.data.mkdir(mode=0o700)
            shutil.copy(folder / "secret", self.data / "secret")
            (self.data / "secret").chmod(0o600)
        self.environment = {
            **os.environ,
            "PARVADA_DATA": str(self.data),
            "PARVADA_SHARED": "off",
            "PARVADA_SLOT": str(number + 1),
            "PARVADA_NODE_NAME": self.name,
            "PARVADA_HOST": LOOPBACK,
            "PARVADA_PEER_HOST": self.address,
            "PARVADA_ADVERTISE": self.address,
            "PARVADA_MDNS": "off",
            "PARVADA_MDNS_INTERFACE": self.address,
            "PARVADA_RAY": "off",
            "PARVADA_FRONTS": "1",
            "PARVADA_CPUS": "1",
            "PARVADA_PROMOTE_AFTER_SECONDS": "0.2",
            **environment,
        }
        self.move(ports)
        self.process: subprocess.Popen[bytes] | None = None

    def move(self, ports: NodePorts) -> None:
        """Other ports from the next start on."""
        self.ports, self.url = ports, f"http://{LOOPBACK}:{ports.api}"
        self.environment |= {
            "PARVADA_PORT": str(ports.api),
            "PARVADA_PEER_PORT": str(ports.peer),
            "PARVADA_RAFT_PORT": str(ports.raft),
        }

    def seed(self, others: Sequence["Host"]) -> None:
        """From the next start on it knows where these are."""
        self.environment["PARVADA_SEEDS"] = ",".join(f"{host.address}:{host.ports.peer}" for host in others)

    def start(self) -> None:
        command = [sys.executable, "-m", "parvada", "node"]
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                command if self._place is None else self._place.command(command),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self.environment,
            )

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    def ask(
        self, method: str, path: str, body: bytes | None = None, *, token: str = "", timeout: float = 10.0
    ) -> Answer:
        """A request from the host itself: no cut is in its way."""
        with self._place.entered() if self._place is not None else contextlib.nullcontext():
            return request(method, f"{self.url}{path}", body, token=token, timeout=timeout)

    def view(self) -> dict[str, Any] | None:
        """GET /v1/cluster as this node sees it; None while it does not answer so."""
        try:
            answer = self.ask("GET", "/v1/cluster", timeout=3.0)
        except OSError:
            return None
        body: dict[str, Any] | None = answer.body if answer.status == 200 else None
        return body

    def alarms(self) -> list[str]:
        view = self.view()
        return [alarm["code"] for alarm in view["alarms"]] if view else []


@contextlib.contextmanager
def hosts(
    folder: Path,
    count: int,
    seeds: list[list[int]] | None = None,
    *,
    shared: bool = False,
    environment: Mapping[str, str] | None = None,
    network: Network | None = None,
) -> Iterator[list[Host]]:
    """Not started yet. `seeds` are the hosts that each knows (by default all the others); `shared`: one data folder
    for all; `network`: each is at the place of its number there. Killed at the end: how nodes stop is not what these
    tests are about."""
    if not (folder / "secret").exists():
        make_secret(folder / "secret")
    if shared:
        (folder / "data").mkdir(mode=0o700)
        shutil.copy(folder / "secret", folder / "data" / "secret")
    told = {**(environment or {}), **({"PARVADA_DATA": str(folder / "data")} if shared else {})}
    places = network.places if network is not None else [None] * count
    with lent(4 * count) as base, node_logs.shown(folder):
        made = [Host(folder, number, ports_of(base, number), told, places[number]) for number in range(count)]
        for number, host in enumerate(made):
            known = seeds[number] if seeds is not None else [other for other in range(count) if other != number]
            host.seed([made[other] for other in known])
        try:
            yield made
        finally:
            for host in made:
                host.kill()


def ports_of(base: int, number: int) -> NodePorts:
    """Four of those from `base` on."""
    return NodePorts(*range(base + 4 * number, base + 4 * number + 4))


def members(host: Host) -> int:
    view = host.view()
    return len(view["nodes"]) if view else 0


def clusters(found: Sequence[Host]) -> set[str]:
    """The ids of the clusters that these hosts belong to."""
    return {view["cluster_id"] for view in (host.view() for host in found) if view}


def wait_for_members(found: Sequence[Host], count: int, timeout: float = 60.0) -> None:
    """Every one of `found` sees that many members; at once an error if one of them has ended."""
    left = list(found)

    def formed() -> bool:
        for host in left:
            assert host.runs, f"{host.name} has ended: {host.log[-2000:]}"
        left[:] = [host for host in left if members(host) != count]
        return not left

    wait_for(f"{count} members on each of {len(found)} nodes", formed, timeout, every=0.2)
