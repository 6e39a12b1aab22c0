"""A cluster of real agents as local processes, started by `parvada up` as a user would."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tests.support import node_logs
from tests.support.nodes import ClusterUnderTest
from tests.support.ports import free_range
from tests.support.wait import wait_for


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
        return pid is not None and Path(f"/proc/{pid}").exists()

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
    ) -> None:
        self.data = data
        self._environment = {**os.environ, **(environment or {})}
        self.count = nodes
        self._restart = restart
        self.port = free_range(nodes)
        self._options = ["--nodes", str(nodes), "--port", str(self.port), "--data", str(data)]
        self._options += [] if ray else ["--no-ray"]
        self._options += [] if restart else ["--no-restart"]
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
        shown = subprocess.run(
            [sys.executable, "-m", "parvada", "token", "show", "--data", str(self.data)],
            capture_output=True,
            check=True,
            timeout=60,
        )
        self.token = shown.stdout.decode().strip()

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
            node_logs.ended(str(self.data))

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
) -> Iterator[Flock]:
    """A flock that is ready: every node a member, the voters in place."""
    flock = Flock(data, nodes, ray=ray, restart=restart, environment=environment)
    try:
        flock.start()
        flock.wait_ready()
        flock.wait_for_voters({1: 1, 2: 2, 3: 3, 4: 3}.get(nodes, 5))
        yield flock
    finally:
        flock.stop()
