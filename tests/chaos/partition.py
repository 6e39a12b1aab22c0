"""Network partitions between local processes: packets of one node's Raft and peer ports are dropped by iptables, in a
network namespace that holds this run alone."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import psutil

Way = Literal["both", "in", "out"]
WAYS: Final[tuple[Way, ...]] = ("both", "in", "out")
_INSIDE = "CHAOS_NAMESPACE"


def why_not() -> str:
    """Why this machine cannot have partitions; empty if it can."""
    if os.geteuid() != 0:
        return "not root"
    for tool in ("unshare", "ip", "iptables"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed"
    probe = ["unshare", "--net", "sh", "-c", "ip link set lo up && iptables -A INPUT -p tcp --dport 1 -j DROP"]
    done = subprocess.run(probe, capture_output=True, text=True, check=False, timeout=20)
    return "" if done.returncode == 0 else f"no namespace with a packet filter: {done.stderr.strip()[:200]}"


def inside() -> bool:
    """Whether this process has a network of its own."""
    return os.environ.get(_INSIDE) == "1"


def enter(arguments: Sequence[str]) -> None:
    """Replace this process by the same command in a network of its own."""
    again = [sys.executable, "-m", "tests.chaos", *arguments]
    script = 'ip link set lo up && ip route add 224.0.0.0/4 dev lo; exec "$@"'
    os.environ[_INSIDE] = "1"
    command = ["unshare", "--net", "sh", "-c", script, "sh", *again]
    os.execvp(command[0], command)  # noqa: S606  a list, no shell expands it


class Partition:
    """Cuts one node off at a time. The ports are those of `ports.json` of the flock."""

    def __init__(self, data: Path) -> None:
        listed = json.loads((data / "ports.json").read_bytes())
        self._ports = [(int(entry["peer"]), int(entry["raft"])) for entry in listed]

    @contextlib.contextmanager
    def isolated(self, index: int, pid: int, way: Way) -> Iterator[None]:
        """Nothing passes between this node's agent and the others; `in`: it hears nothing; `out`: nobody hears it.

        New connections between nodes are refused everywhere meanwhile, as the dialer's port is not known in advance;
        those that the other nodes have go on.
        """
        rules = [["-p", "tcp", "--dport", str(port), "--syn"] for ports in self._ports for port in ports]
        rules += [self._rule(flag, port) for flag, port in self._endpoints(index, pid, way)]
        try:
            for rule in rules:
                _iptables("-A", rule)
            yield
        finally:
            for rule in rules:
                _iptables("-D", rule)

    def _endpoints(self, index: int, pid: int, way: Way) -> list[tuple[str, int]]:
        """The node's own ends of its connections to peers: the ports it listens on, and those it dialled from."""
        every = {port for ports in self._ports for port in ports}
        own = set(self._ports[index])
        with contextlib.suppress(psutil.Error):
            for connection in psutil.Process(pid).net_connections("tcp"):
                if connection.status == psutil.CONN_ESTABLISHED and connection.raddr.port in every:
                    own.add(connection.laddr.port)
        flags = {"both": ("--dport", "--sport"), "in": ("--dport",), "out": ("--sport",)}[way]
        return [(flag, port) for port in sorted(own) for flag in flags]

    @staticmethod
    def _rule(flag: str, port: int) -> list[str]:
        return ["-p", "tcp", flag, str(port)]


def _iptables(action: str, rule: list[str]) -> None:
    subprocess.run(["iptables", "-w", action, "INPUT", *rule, "-j", "DROP"], check=True, timeout=10)
