"""Faults: kill -9 of a node, of the leader, of all at once; a node frozen; a node cut off."""

import contextlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence

from tests.chaos.arena import Arena, Target
from tests.support.wait import wait_for

BACK_SECONDS = 90.0
"""For all killed nodes to run again, and to answer."""
JOB_SECONDS = 60.0
"""For a job to be in its middle."""
ALWAYS = 3
"""Faults that every run has: the leader's death, a partition or a pause, the death of all."""


class Nemesis:
    """Strikes at random, one fault at a time, and undoes what does not undo itself."""

    def __init__(self, arena: Arena, seed: int) -> None:
        self._arena = arena
        self._random = random.Random(seed)
        self._lives = arena.lives()
        self.counts: Counter[str] = Counter()
        self.surprises: list[str] = []
        """Deaths that were not its doing."""

    def run(self, stopping: threading.Event) -> None:
        """The worst first, `ALWAYS` of them even if stopped before; then rounds of all faults in random order."""
        cut = self.cut_off if self._arena.ways else self.pause
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
        self.counts["kills of one"] += self._kill([self._random.choice(self._arena.nodes)])

    def kill_leader(self) -> None:
        leader = self._leader()
        if leader is not None:
            self.counts["kills of the leader"] += self._kill([leader])

    def kill_all(self) -> None:
        """As when the power goes: all in the same moment."""
        self.counts["kills of all"] += self._kill(self._arena.nodes) == len(self._arena.nodes)

    def power_cuts(self, times: int) -> None:
        """Kill all so many times, each in the middle of a job, early or late in it."""
        for _ in range(times):
            share = self._random.uniform(0.0, 0.8)
            wait_for(
                "a job in its middle",
                lambda share=share: self._in_mid_job(share),  # type: ignore[misc]
                JOB_SECONDS * self._arena.patience,
                every=0.1,
            )
            self.counts["kills of all in mid job"] += 1
            self.kill_all()
            self._arena.wait_ready(BACK_SECONDS * self._arena.patience)

    def _in_mid_job(self, share: float) -> bool:
        """Whether more than this share of some job's folds is done, and not all."""
        answer = self._arena.ask(self._arena.nodes[0], "GET", "/v1/jobs?state=running", timeout=5)
        jobs = answer.body["jobs"] if answer.status == 200 else []
        progress = [(job["progress"]["trials_done"], job["progress"]["trials_total"]) for job in jobs]
        return any(share * total < done < total for done, total in progress)

    def pause(self) -> None:
        """Long enough that a leader loses its office, and wakes up not knowing."""
        with self._arena.frozen(self._random.choice(self._arena.nodes)):
            self.counts["pauses"] += 1
            time.sleep(self._random.uniform(0.5, 3.5))

    def cut_off(self) -> None:
        """Long enough that the rest elects without it."""
        node, way = self._random.choice(self._arena.nodes), self._random.choice(self._arena.ways)
        with self._arena.isolated(node, way):
            self.counts["partitions"] += 1
            time.sleep(self._random.uniform(1.0, 4.0))

    def watch(self, spared: set[str]) -> None:
        """Note whichever of the `spared` nodes began another life since the last look."""
        now = self._arena.lives()
        died = sorted(name for name in spared if now.get(name) != self._lives.get(name))
        self.surprises += [f"{name} ended by itself" for name in died]
        self._lives = now

    def _leader(self) -> Target | None:
        """As the first node that answers tells it; None if none knows."""
        for node in self._arena.nodes:
            with contextlib.suppress(OSError, AssertionError):
                view = self._arena.view(node)
                for name in [each["name"] for each in view["nodes"] if each["id"] == view["leader"]]:
                    return next(each for each in self._arena.nodes if each.name == name)
        return None

    def _kill(self, nodes: Sequence[Target]) -> int:
        """How many were killed. A second fault strikes only when all run again; whether they have caught up is left to
        chance."""
        spared = {node.name for node in self._arena.nodes} - {node.name for node in nodes}
        self.watch(set(self._lives))
        killed = self._arena.strike_down(nodes, self._random)
        self.counts["kills"] += len(killed)
        self._arena.revive(killed, BACK_SECONDS * self._arena.patience)
        self.watch(spared)
        time.sleep(self._random.uniform(0.0, 2.5))
        return len(killed)
