"""The arena of local processes: `parvada up` starts what was killed again, iptables cut connections."""

import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from random import Random

from tests.chaos.arena import Arena, Target
from tests.chaos.partition import WAYS, Partition
from tests.support.flock import Flock, LocalNode
from tests.support.wait import wait_for


class Processes(Arena):
    """The agents of one flock."""

    patience = 2.5

    def __init__(self, flock: Flock, partition: Partition | None) -> None:
        self._flock = flock
        self._partition = partition
        self.token = flock.token
        self.ways = WAYS if partition is not None else ()

    @property
    def nodes(self) -> Sequence[LocalNode]:
        return self._flock.nodes

    def wait_ready(self, timeout: float = 90.0) -> None:
        self._flock.wait_ready(timeout)

    def lives(self) -> dict[str, int]:
        return {node.name: node.pid for node in self.nodes if node.pid is not None}

    def strike_down(self, nodes: Sequence[Target], random: Random) -> set[int]:
        killed = set()
        for pid in [node.pid for node in nodes]:
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        return killed

    def revive(self, killed: set[int], timeout: float) -> None:
        wait_for(
            "killed nodes to run again",
            lambda: all(node.alive and node.pid not in killed for node in self.nodes),
            timeout,
        )

    @contextlib.contextmanager
    def frozen(self, node: Target) -> Iterator[None]:
        pid = node.pid
        if pid is None:
            yield
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    @contextlib.contextmanager
    def isolated(self, node: Target, way: str) -> Iterator[None]:
        assert self._partition is not None
        index = [each.name for each in self.nodes].index(node.name)
        pid = node.pid
        if pid is None:
            yield
            return
        with self._partition.isolated(index, pid, next(one for one in WAYS if one == way)):
            yield
