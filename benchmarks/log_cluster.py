"""Logs alone in processes of their own, on loopback: started, asked, killed and started again."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks.log_node import Ask, Reply, Start, identity_of
from consensus.state import NodeId
from tests.support.wait import wait_for


class LogProcess:
    """One log. `ask` blocks until it answers."""

    def __init__(self, start: Start) -> None:
        self.start, self.me = start, start.me
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        argument = msgspec.json.encode(self.start).decode()
        log = (self.start.folder / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.log_node", argument],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send(self, ask: Ask) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(ask) + b"\n")
        self._process.stdin.flush()

    def receive(self) -> Reply:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"a log ended; see {self.start.folder / 'log'}"
        return msgspec.json.decode(line, type=Reply)

    def ask(self, ask: Ask) -> Reply:
        self.send(ask)
        return self.receive()

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def stop(self) -> None:
        """By the end of its input; one that never began has nothing to stop."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


class LogCluster:
    """Started and with its voters in place; the first node has formed it."""

    def __init__(self, nodes: Sequence[LogProcess]) -> None:
        self.nodes = nodes

    def begin(self, voters: int) -> None:
        for node in self.nodes:
            node.begin()
        for node in self.nodes:
            node.receive()
        for number in range(2, voters + 1):
            wait_for(f"voter {number}", lambda number=number: self._promote(number), 30)  # type: ignore[misc]
        wait_for("all to know", lambda: all(len(self.status(node).voters) == voters for node in self.nodes), 30)

    def _promote(self, number: int) -> bool:
        node = self.nodes[number - 1]
        return not self.leader().ask(Ask("promote", node.me)).error

    def status(self, node: LogProcess) -> Reply:
        return node.ask(Ask("status"))

    def leader(self) -> LogProcess:
        """The leader that all of them name."""

        def agreed() -> LogProcess | None:
            named = {self.status(node).leader for node in self.nodes}
            return next((node for node in self.nodes if named == {node.me}), None)

        return wait_for("one leader", agreed, 30)

    def load(self, through: Sequence[LogProcess], in_flight: int, seconds: float) -> Reply:
        """`in_flight` writes at a time, spread evenly over these nodes: the sum, the mean of medians, the worst p99."""
        for node in through:
            node.send(Ask("load", in_flight=max(1, in_flight // len(through)), seconds=seconds))
        replies = [node.receive() for node in through]
        assert not any(reply.error for reply in replies), replies
        return Reply(
            writes=sum(reply.writes for reply in replies),
            seconds=max(reply.seconds for reply in replies),
            p50=sum(reply.p50 for reply in replies) / len(replies),
            p99=max(reply.p99 for reply in replies),
        )


@contextlib.contextmanager
def logs(folder: Path, count: int, voters: int) -> Iterator[LogCluster]:
    """A cluster of `count` logs below `folder`."""
    ids = {}
    for number in range(count):
        (folder / str(number)).mkdir(parents=True)
        ids[NodeId(identity_of(folder / str(number)).id)] = folder / str(number)
    ports = dict(zip(ids, _free_ports(count), strict=True))
    genesis = next(iter(ids))
    cluster = LogCluster([LogProcess(Start(str(path), me, genesis, ports)) for me, path in ids.items()])
    try:
        cluster.begin(voters)
        yield cluster
    finally:
        for node in cluster.nodes:
            node.stop()


def _free_ports(count: int) -> list[int]:
    """Below the range from which the system picks, so that none is taken while a node is away."""
    ports: list[int] = []
    port = 20000 + os.getpid() % 5000
    while len(ports) < count:
        port += 1
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            ports.append(port)
    return ports
