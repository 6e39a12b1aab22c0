"""Faults: kill -9 of a node, of the leader, of all at once; a pause by SIGSTOP; a partition by packet filter."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.chaos.partition import WAYS, Partition
from tests.support.flock import Flock, LocalNode
from tests.support.wait import wait_for

BACK_SECONDS = 40.0
"""For all killed nodes to answer again."""
JOB_SECONDS = 60.0
"""For a job to be in its middle."""
ALWAYS = 3
"""Faults that every run has: the leader's death, a partition or a pause, the death of all."""


class Nemesis:
    """Strikes at random, one fault at a time, and undoes what does not undo itself."""

    def __init__(self, flock: Flock, seed: int, partition: Partition | None) -> None:
        self._flock = flock
        self._random = random.Random(seed)
        self._partition = partition
        self.counts: Counter[str] = Counter()

    def run(self, stopping: threading.Event) -> None:
        """The worst first, `ALWAYS` of them even if stopped before; then rounds of all faults in random order."""
        cut = self.cut_off if self._partition is not None else self.pause
        faults: list[Callable[[], None]] = [self.kill_leader, cut, self.kill_all, self.pause, cut, self.kill_one]
        struck = 0
        while True:
            for fault in faults:
                if stopping.is_set() and struck >= ALWAYS:
                    return
                fault()
                struck += 1
                stopping.wait(self._random.uniform(0.3, 2.0))
            self._random.shuffle(faults)

    def kill_one(self) -> None:
        self._come_back(self._kill([self._random.choice(self._flock.nodes)]))

    def kill_leader(self) -> None:
        for node in self._flock.nodes:
            with contextlib.suppress(OSError, AssertionError, StopIteration):
                leader = self._flock.view(node)["leader"]
                if leader:
                    killed = self._kill([self._named(leader, node)])
                    self.counts["kills of the leader"] += len(killed)
                    self._come_back(killed)
                    return

    def kill_all(self) -> None:
        """As when the power goes: all in the same moment."""
        killed = self._kill(list(self._flock.nodes))
        self.counts["kills of all"] += len(killed) == len(self._flock.nodes)
        self._come_back(killed)

    def power_cuts(self, times: int) -> None:
        """Kill all so many times, each in the middle of a job."""
        for _ in range(times):
            wait_for("a job in its middle", self._in_mid_job, JOB_SECONDS, every=0.1)
            time.sleep(self._random.uniform(0.0, 1.5))
            self.kill_all()
            self._flock.wait_ready(BACK_SECONDS)

    def _in_mid_job(self) -> bool:
        jobs = self._flock.ask(self._flock.nodes[0], "GET", "/v1/jobs?state=running", timeout=5).body["jobs"]
        return any(0 < job["progress"]["trials_done"] < job["progress"]["trials_total"] for job in jobs)

    def pause(self) -> None:
        """Long enough that a leader loses its office, and wakes up not knowing."""
        node = self._random.choice(self._flock.nodes)
        pid = node.pid
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            self.counts["pauses"] += 1
            try:
                time.sleep(self._random.uniform(0.5, 3.5))
            finally:
                os.kill(pid, signal.SIGCONT)

    def cut_off(self) -> None:
        """One node is cut off from both others, in both directions or in one."""
        assert self._partition is not None
        index = self._random.randrange(len(self._flock.nodes))
        way = self._random.choice(WAYS)
        pid = self._flock.nodes[index].pid
        if pid is None:
            return
        with self._partition.isolated(index, pid, way):
            self.counts["partitions"] += 1
            time.sleep(self._random.uniform(1.0, 4.0))

    def _named(self, node_id: str, asked: LocalNode) -> LocalNode:
        name = next(node["name"] for node in self._flock.view(asked)["nodes"] if node["id"] == node_id)
        return next(node for node in self._flock.nodes if node.name == name)

    def _kill(self, nodes: list[LocalNode]) -> set[int]:
        """kill -9 of those that run; their pids."""
        killed = set()
        for pid in [node.pid for node in nodes]:
            if pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed.add(pid)
        self.counts["kills"] += len(killed)
        return killed

    def _come_back(self, killed: set[int]) -> None:
        """A second fault strikes only when all run again; whether they have caught up is left to chance."""
        wait_for(
            "killed nodes to run again",
            lambda: all(node.alive and node.pid not in killed for node in self._flock.nodes),
            BACK_SECONDS,
        )
        time.sleep(self._random.uniform(0.0, 2.5))
