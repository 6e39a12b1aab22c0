"""A cluster of real containers, driven through `docker compose` as a user would."""

import json
import os
import subprocess
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.support import node_logs
from tests.support.nodes import ClusterUnderTest
from tests.support.terminal import Terminal, on_terminal

ROOT = Path(__file__).parents[2]


def docker(*arguments: str, check: bool = True, timeout: float = 120.0) -> str:
    """Run docker; returns its standard output."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr[-2000:]}"
    return done.stdout


class Container:
    """One replica of the `node` service."""

    def __init__(self, project: "Compose", number: int) -> None:
        self._project = project
        self.number = number
        self.name = f"node-{number}"
        self.container = f"{project.name}-node-{number}"

    @property
    def url(self) -> str:
        """Its client port on the host, which changes at every restart."""
        published = docker("port", self.container, "8080/tcp", check=False).strip().splitlines()
        if not published:
            raise ConnectionRefusedError(f"{self.container} publishes no port")
        return f"http://{published[0]}"

    @property
    def alive(self) -> bool:
        return docker("inspect", "-f", "{{.State.Running}}", self.container, check=False).strip() == "true"

    @property
    def health(self) -> str:
        return docker("inspect", "-f", "{{.State.Health.Status}}", self.container, check=False).strip()

    def kill(self) -> None:
        """kill -9 of everything in the container; Docker leaves a killed container down until it is started."""
        docker("kill", "--signal", "KILL", self.container)

    def start(self) -> None:
        docker("start", self.container)

    def run(self, *command: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """docker exec, without a check of the exit code."""
        return subprocess.run(
            ["docker", "exec", self.container, *command], capture_output=True, text=True, timeout=timeout, check=False
        )


class Compose(ClusterUnderTest):
    """One compose project with its own name and volume."""

    def __init__(self, name: str, environment: dict[str, str] | None = None) -> None:
        self.name = name
        self._environment = {**os.environ, "COMPOSE_PROJECT_NAME": name, **(environment or {})}

    def compose(self, *arguments: str, timeout: float = 300.0, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["docker", "compose", *arguments],
            cwd=ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert not check or done.returncode == 0, f"docker compose {' '.join(arguments)}: {done.stderr[-3000:]}"
        return done

    def on_terminal(self, *arguments: str) -> AbstractContextManager[Terminal]:
        """`docker compose …` on a terminal of its own."""
        return on_terminal(["docker", "compose", *arguments], ROOT, self._environment)

    def up(self, scale: int | None = None, options: Sequence[str] = ()) -> None:
        """Until all are ready. Not by `--wait`, which gives up on a container that is unhealthy for a moment, as on a
        machine with more to do than it can."""
        node_logs.started(self.name, lambda: [(f"logs of {self.name}", self.logs())])
        scaled = ["--scale", f"node={scale}"] if scale is not None else []
        self.compose("up", "--detach", *scaled, *options)
        self.wait_ready(300)
        self.token = self.nodes[0].run("parvada", "token", "show").stdout.strip()

    def down(self, *, volumes: bool = False) -> None:
        node_logs.ended(self.name)
        self.compose("down", "--timeout", "20", *(["--volumes"] if volumes else []))

    @property
    def nodes(self) -> Sequence[Container]:
        listed = self.compose("ps", "--all", "--format", "json", "node").stdout.splitlines()
        rows: list[dict[str, Any]] = [json.loads(line) for line in listed if line.strip()]
        return [Container(self, number) for number in sorted(int(row["Name"].rpartition("-")[2]) for row in rows)]

    def logs(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "200", check=False).stdout
