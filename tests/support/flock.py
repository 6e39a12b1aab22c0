"""A cluster of real agents as local processes, started by `parvada up` as a user would, but that its nodes are small
and quick: what is tested is the order of things, not how long they wait."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from node.identity.secret import admin_token, load_secret
from node.processes.deathwatch import stat_fields
from node.up import NodePorts
from tests.support import node_logs
from tests.support.nodes import ClusterUnderTest
from tests.support.ports import give_back, lend
from tests.support.wait import wait_for

QUICK: Final = {
    "PARVADA_FRONTS": "1",
    "PARVADA_PROMOTE_AFTER_SECONDS": "0.2",
    "PARVADA_MDNS": "off",  # they are one another's seeds
}
RESTART_AFTER: Final = "1"
"""Seconds: time for those that live to elect before a dead one is back."""


class LocalNode:
    """One node of a flock; its pid changes when it is started again."""

    def __init__(self, flock: "Flock", name: str, port: int) -> None:
        self._flock = flock
        self.name = name
        self.url = f"http://127.0.0.1:{port}"

    @property
    def pid(self) -> int | None:
        return self._flock.pids().get(self.url)

    @property
    def alive(self) -> bool:
        pid = self.pid
        return pid is not None and _runs(pid)

    @property
    def data(self) -> Path:
        return Path(self._flock.data) / "slots" / self.name.removeprefix("node-")

    def signal(self, number: signal.Signals) -> None:
        pid = self.pid
        assert pid is not None, f"{self.name} is not running"
        os.kill(pid, number)

    def kill(self) -> None:
        pid = self.pid
        self.signal(signal.SIGKILL)
        wait_for(f"{self.name} to be gone", lambda: self.pid != pid, 30)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)


def _runs(pid: int) -> bool:
    """Not so a zombie, which may wait for long to be noticed by whoever has inherited it."""
    fields = stat_fields(pid)
    return fields is not None and fields[0] not in "ZX"


class Flock(ClusterUnderTest):
    """`parvada up` with its nodes."""

    def __init__(
        self,
        data: Path,
        nodes: int = 3,
        *,
        ray: bool = False,
        restart: bool = True,
        environment: Mapping[str, str] | None = None,
        as_shipped: bool = False,
    ) -> None:
        """`as_shipped`: with the timers and inner ports that `parvada up` chooses."""
        self.data = data
        self._environment = {**os.environ, **({} if as_shipped else QUICK), **(environment or {})}
        self.count = nodes
        self._restart = restart
        self._chooses_ports = as_shipped
        self.port = lend(nodes if as_shipped else 4 * nodes)
        self._options = ["--nodes", str(nodes), "--port", str(self.port), "--data", str(data)]
        self._options += [] if ray else ["--no-ray"]
        self._options += [] if restart else ["--no-restart"]
        self._options += [] if as_shipped else ["--restart-after", RESTART_AFTER]
        self._nodes = [LocalNode(self, f"node-{k + 1}", self.port + k) for k in range(nodes)]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def nodes(self) -> Sequence[LocalNode]:
        return self._nodes

    def wait_ready(self, timeout: float = 90.0) -> None:
        """Also of those that `up` is about to start again: only then may the next one be killed."""
        if self._restart:
            wait_for("every node to run", lambda: all(node.alive for node in self.nodes), timeout)
        super().wait_ready(timeout)

    def by_id(self, node_id: str) -> LocalNode:
        found = super().by_id(node_id)
        assert isinstance(found, LocalNode)
        return found

    def pids(self) -> dict[str, int]:
        """URL to pid of each agent that runs now."""
        path = self.data / "up.json"
        if not path.exists():
            return {}
        listed: list[dict[str, Any]] = json.loads(path.read_bytes())["nodes"]
        return {f"http://127.0.0.1:{node['api_port']}": node["pid"] for node in listed}

    def start(self) -> None:
        self.data.mkdir(parents=True, exist_ok=True)
        if not self._chooses_ports:
            (self.data / "ports.json").write_bytes(msgspec.json.encode(self._ports()))
        node_logs.started(str(self.data), partial(node_logs.of_folder, self.data))
        with (self.data / "up.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "parvada", "up", *self._options],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._environment,
            )
        wait_for("up.json to list every node", lambda: len(self.pids()) == self.count, 60)
        self.token = admin_token(load_secret(self.data / "secret"))

    def _ports(self) -> list[NodePorts]:
        """The inner ones of each node, beside those of the clients: nobody else's on this machine."""
        inner = range(self.port + self.count, self.port + 4 * self.count)
        return [NodePorts(self.port + k, *inner[3 * k : 3 * k + 3]) for k in range(self.count)]

    def stop(self) -> int:
        """SIGINT, as Ctrl-C; returns the exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)
            raise
        finally:
            self._over()

    def end(self) -> None:
        """As when the machine loses its power: how a flock stops is for a test to say."""
        if self._process is not None and self._process.poll() is None:
            pids = self.pids().values()
            for pid in (self._process.pid, *pids):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(10)
            wait_for("its nodes to be gone", lambda: not any(map(_runs, pids)), 30)
            (self.data / "up.json").unlink()  # of whoever is started here next, it would not be true
        self._over()

    def _over(self) -> None:
        node_logs.ended(str(self.data))
        give_back(self.port)

    def log(self, node: LocalNode) -> str:
        return (self.data / "logs" / f"{node.name}.log").read_text(errors="replace")


@contextlib.contextmanager
def running(
    data: Path,
    nodes: int = 3,
    *,
    ray: bool = False,
    restart: bool = True,
    environment: Mapping[str, str] | None = None,
    as_shipped: bool = False,
) -> Iterator[Flock]:
    """A flock that is ready: every node a member, the voters in place."""
    flock = Flock(data, nodes, ray=ray, restart=restart, environment=environment, as_shipped=as_shipped)
    try:
        flock.start()
        flock.wait_ready()
        flock.wait_for_voters({1: 1, 2: 2, 3: 3, 4: 3}.get(nodes, 5))
        yield flock
    finally:
        flock.end()
