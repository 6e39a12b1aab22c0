"""Agents that come and go one by one, as containers do when a service is scaled: one data folder, a slot a node."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from node.identity.secret import admin_token, load_secret, make_secret
from node.up import NodePorts
from tests.support import node_logs
from tests.support.nodes import ClusterUnderTest
from tests.support.ports import give_back, lend
from tests.support.wait import wait_for

QUICK = {"PARVADA_FRONTS": "1", "PARVADA_CPUS": "1", "PARVADA_RAY": "off", "PARVADA_PROMOTE_AFTER_SECONDS": "0.2"}
"""Small nodes, and newcomers that vote soon: what is tested is the order of things, not how long they wait."""
STOP_SECONDS = 60.0


class BandNode:
    """One agent as a child process; `start` and `stop` any number of times."""

    def __init__(self, band: "Band", number: int, ports: NodePorts) -> None:
        self._band = band
        self.number, self.ports = number, ports
        self.name = f"node-{number}"
        self.url = f"http://127.0.0.1:{ports.api}"
        self.process: subprocess.Popen[bytes] | None = None
        self._runs = False

    def check(self) -> None:
        """Fails at once when it was to run and does not: no use in waiting for it."""
        assert self.alive or not self._runs, f"{self.name} has ended by itself:\n{self.log[-2000:]}"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def data(self) -> Path:
        return self._band.data / "slots" / str(self.number)

    @property
    def log(self) -> str:
        return self._log_path.read_text(errors="replace")

    @property
    def _log_path(self) -> Path:
        return self._band.data.parent / f"{self.name}.log"

    def start(self) -> None:
        assert not self.alive, f"{self.name} runs already"
        self._runs = True
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "parvada", "node"],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=self._band.environment_of(self),
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        self._runs = False
        self.signal(signal.SIGKILL)
        assert self.process is not None
        self.process.wait(10)

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)

    def terminate(self) -> None:
        """SIGTERM, without waiting: what `docker stop` begins with."""
        self._runs = False
        self.signal(signal.SIGTERM)

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """The exit code, once it has ended by itself."""
        assert self.process is not None
        self._runs = False
        return self.process.wait(timeout)


class Band(ClusterUnderTest):
    """Room for `count` nodes, none of which runs yet. The shared folder says who forms."""

    def __init__(self, folder: Path, count: int, environment: Mapping[str, str] | None = None) -> None:
        self.data = folder / "data"
        self.data.mkdir(parents=True, mode=0o700)
        make_secret(self.data / "secret")
        self.token = admin_token(load_secret(self.data / "secret"))
        self._environment = {**os.environ, **QUICK, **(environment or {})}
        self._base = base = lend(count * 4)
        self._nodes = [
            BandNode(self, number + 1, NodePorts(*range(base + 4 * number, base + 4 * number + 4)))
            for number in range(count)
        ]

    @property
    def nodes(self) -> Sequence[BandNode]:
        return self._nodes

    @property
    def living(self) -> list[BandNode]:  # type: ignore[override]  # narrower: a list of its own nodes
        return [node for node in self._nodes if node.alive]

    def by_id(self, node_id: str) -> BandNode:
        found = super().by_id(node_id)
        assert isinstance(found, BandNode)
        return found

    def leader_that_trains(self) -> BandNode:
        found = super().leader_that_trains()
        assert isinstance(found, BandNode)
        return found

    def id_of(self, node: BandNode) -> str:
        return str(next(each["id"] for each in self.view(self.living[0])["nodes"] if each["name"] == node.name))

    def environment_of(self, node: BandNode) -> dict[str, str]:
        others = [other for other in self._nodes if other is not node]
        return {
            **self._environment,
            "PARVADA_DATA": str(self.data),
            "PARVADA_SLOT": str(node.number),
            "PARVADA_NODE_NAME": node.name,
            "PARVADA_HOST": "127.0.0.1",
            "PARVADA_PEER_HOST": "127.0.0.1",
            "PARVADA_ADVERTISE": "127.0.0.1",
            "PARVADA_MDNS": "off",
            "PARVADA_PORT": str(node.ports.api),
            "PARVADA_PEER_PORT": str(node.ports.peer),
            "PARVADA_RAFT_PORT": str(node.ports.raft),
            "PARVADA_SEEDS": ",".join(f"127.0.0.1:{other.ports.peer}" for other in others),
        }

    # ---------------------------------------------------------------- verbs
    def grow(self, count: int) -> None:
        """Start nodes until `count` live."""
        for node in [node for node in self._nodes if not node.alive][: count - len(self.living)]:
            node.start()

    def shrink(self, gone: Sequence[BandNode]) -> None:
        """SIGTERM to all of `gone` at once, and wait until they have ended by themselves."""
        for node in gone:
            node.terminate()
        for node in gone:
            assert node.wait() == 0, node.log[-2000:]

    def settle(self, members: int, voters: int, timeout: float = 120.0) -> None:
        """Every living node sees `members` that live, that many voters and a quorum, and is ready."""

        def settled() -> bool:
            for node in self._nodes:
                node.check()
            for node in self.living:
                if self.ask(node, "GET", "/readyz", timeout=3.0).status != 200:
                    return False
                view = self.view(node)
                alive = sum(each["state"] in ("alive", "draining") for each in view["nodes"])
                if (alive, len(view["voters"]), view["quorum"]) != (members, voters, True):
                    return False
            return True

        wait_for(f"{members} nodes and {voters} voters", settled, timeout, every=0.2)

    def stop(self) -> None:
        """The end of all that lives. How nodes stop is for a test to say: `shrink`."""
        for node in self.living:
            node.kill()
        give_back(self._base)


@contextlib.contextmanager
def band(folder: Path, count: int, **environment: str) -> Iterator[Band]:
    """Room for `count` nodes; those that run at the end are killed."""
    made = Band(folder, count, environment)
    with node_logs.shown(folder):
        try:
            yield made
        finally:
            made.stop()
