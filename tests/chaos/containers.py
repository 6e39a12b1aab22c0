"""The arena of containers: `docker kill` or kill -9 from the host, `docker pause`, packet filters in a container's
network namespace, the network pulled out like a cable."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from tests.chaos.arena import Arena, Target
from tests.chaos.partition import WAYS
from tests.support.compose import Compose, docker
from tests.support.wait import wait_for

CABLE = "cable"
"""`docker network disconnect`: the node loses its address, and its clients too."""
SERVICE = "node"
PAUSE_ATTEMPTS = 5


class Vessel:
    """One container. URL and pid are kept, since asking Docker at every request would be the slowest part of it; both
    are forgotten before every fault that changes them, so that no answer is put down to the wrong life."""

    def __init__(self, container: str, name: str) -> None:
        self.container = container
        self.name = name
        self.pid: int | None = None
        self.known_url = ""

    @property
    def url(self) -> str:
        if not self.known_url:
            raise ConnectionRefusedError(f"{self.container} publishes no port now")
        return self.known_url

    @property
    def alive(self) -> bool:
        return self.pid is not None

    def forget(self) -> None:
        self.pid, self.known_url = None, ""

    def kill(self) -> None:
        self.forget()
        docker("kill", "--signal", "KILL", self.container)


class Containers(Arena):
    """The nodes of one compose project that is up."""

    def __init__(self, project: Compose, patience: float = 3.0) -> None:
        self.token = project.token
        self.patience = patience
        self._vessels = [Vessel(node.container, node.name) for node in project.nodes]
        self._refresh(self._inspect())
        self._host_kills = _own_processes({vessel.container: vessel.pid for vessel in self._vessels})
        self.ways = (*WAYS, CABLE) if self._host_kills and _filters(self._vessels[0].pid) else (CABLE,)

    @property
    def nodes(self) -> Sequence[Vessel]:
        return self._vessels

    def lives(self) -> dict[str, int]:
        seen = self._inspect()
        return {
            each.name: seen[each.container]["State"]["Pid"] for each in self._vessels if _runs(seen[each.container])
        }

    def strike_down(self, nodes: Sequence[Target], random: Random) -> set[int]:
        """From the host, after which Docker's restart policy brings them back; or by `docker kill`, after which they
        stay down until they are started."""
        struck = [vessel for vessel in self._vessels if vessel.name in {node.name for node in nodes} and vessel.alive]
        pids = [vessel.pid for vessel in struck if vessel.pid is not None]
        for vessel in struck:
            vessel.forget()
        if self._host_kills and random.random() < 0.5:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            docker("kill", "--signal", "KILL", *(vessel.container for vessel in struck))
        return set(pids)

    def revive(self, killed: set[int], timeout: float) -> None:
        def back() -> bool:
            seen = self._inspect()
            down = [name for name, shown in seen.items() if shown["State"]["Status"] in ("exited", "created")]
            if down:
                docker("start", *down)
            if down or not all(_runs(shown) and shown["State"]["Pid"] not in killed for shown in seen.values()):
                return False
            self._refresh(seen)
            return all(vessel.known_url for vessel in self._vessels)

        wait_for("killed containers to run again", back, timeout, every=0.2)

    @contextlib.contextmanager
    def frozen(self, node: Target) -> Iterator[None]:
        container = self._vessel(node).container
        _pause(container)
        try:
            yield
        finally:
            docker("unpause", container)

    @contextlib.contextmanager
    def isolated(self, node: Target, way: str) -> Iterator[None]:
        vessel = self._vessel(node)
        with self._unplugged(vessel) if way == CABLE else self._filtered(vessel, way):
            yield

    @contextlib.contextmanager
    def _unplugged(self, vessel: Vessel) -> Iterator[None]:
        ((network, _),) = _networks(self._inspect()[vessel.container]).items()
        vessel.forget()
        docker("network", "disconnect", network, vessel.container)
        try:
            yield
        finally:
            docker("network", "connect", "--alias", SERVICE, network, vessel.container)
            self.revive(set(), 40.0)  # with the port that it has now

    @contextlib.contextmanager
    def _filtered(self, vessel: Vessel, way: str) -> Iterator[None]:
        """Packets from and to the other containers; clients on the host are still served."""
        others = [_address(shown) for name, shown in self._inspect().items() if name != vessel.container]
        heard = [["INPUT", "-s", address] for address in others if way in ("both", "in")]
        said = [["OUTPUT", "-d", address] for address in others if way in ("both", "out")]
        assert vessel.pid is not None
        try:
            for rule in heard + said:
                _iptables(vessel.pid, "-A", *rule, "-j", "DROP")
            yield
        finally:
            _iptables(vessel.pid, "-F")

    def _vessel(self, node: Target) -> Vessel:
        return next(vessel for vessel in self._vessels if vessel.name == node.name)

    def _inspect(self) -> dict[str, dict[str, Any]]:
        """Container name to what `docker inspect` says of it."""
        raw = docker("inspect", "--type", "container", *(vessel.container for vessel in self._vessels))
        return {shown["Name"].removeprefix("/"): shown for shown in msgspec.json.decode(raw)}

    def _refresh(self, seen: dict[str, dict[str, Any]]) -> None:
        for vessel in self._vessels:
            shown = seen[vessel.container]
            ports = (shown["NetworkSettings"]["Ports"] or {}).get("8080/tcp") or []
            vessel.known_url = f"http://{ports[0]['HostIp']}:{ports[0]['HostPort']}" if ports else ""
            vessel.pid = shown["State"]["Pid"] if _runs(shown) else None


def _runs(shown: dict[str, Any]) -> bool:
    return bool(shown["State"]["Status"] == "running" and shown["State"]["Pid"] > 0)


def _networks(shown: dict[str, Any]) -> dict[str, Any]:
    networks: dict[str, Any] = shown["NetworkSettings"]["Networks"]
    return networks


def _address(shown: dict[str, Any]) -> str:
    return next(str(network["IPAddress"]) for network in _networks(shown).values())


def _own_processes(pids: dict[str, int | None]) -> bool:
    """Whether this process may kill these: it is root, and Docker runs on this kernel, not in a machine of its own."""
    return os.geteuid() == 0 and all(pid and _is_init(pid) for pid in pids.values())


def _is_init(pid: int) -> bool:
    """The first process of a container has pid 1 in a namespace below ours."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return False
    line = next(line for line in status.read_text().splitlines() if line.startswith("NSpid:"))
    return line.split()[-1] == "1" and len(line.split()) > 2


def _filters(pid: int | None) -> bool:
    if pid is None or shutil.which("nsenter") is None or shutil.which("iptables") is None:
        return False
    probe = ["nsenter", f"--net=/proc/{pid}/ns/net", "iptables", "-w", "-L", "-n"]
    return subprocess.run(probe, capture_output=True, check=False, timeout=20).returncode == 0


def _iptables(pid: int, *rule: str) -> None:
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", "iptables", "-w", *rule]
    subprocess.run(command, check=True, timeout=10)


def _pause(container: str) -> None:
    """The kernel may fail to freeze a container that is just starting processes ("unable to freeze"); asked again, it
    does. The last failure counts."""
    for attempt in range(PAUSE_ATTEMPTS):
        last = attempt == PAUSE_ATTEMPTS - 1
        docker("pause", container, check=last)
        if last or _is_paused(container):
            return
        time.sleep(0.5)


def _is_paused(container: str) -> bool:
    return docker("inspect", "--format", "{{.State.Paused}}", container).strip() == "true"
