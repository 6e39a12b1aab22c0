"""One flock changed under load, as `docker compose` does it: scaled up and down, or restarted node by node. Writes go
on in every step, and how long they stood still is measured."""

import itertools
import time
from typing import NamedTuple

from tests.support.band import Band
from tests.support.writers import Writers, missing, writing

STEPS = ((1, 1), (3, 3), (5, 5), (7, 5))
"""Nodes, and the voters that there are to be."""
AT_LAST = 3


class Changed(NamedTuple):
    gaps: dict[str, float]
    """Each step with the longest time in seconds between two acknowledged writes."""
    acknowledged: int
    lost: int
    """Acknowledged, and not there on every node at the end."""
    odd: list[str]
    """Answers that no change of members excuses."""


def scale(cluster: Band) -> Changed:
    """1 -> 3 -> 5 -> 7 nodes, then four stop at once, the leader among them. Checks members and voters of each step."""
    gaps: dict[str, float] = {}
    cluster.grow(STEPS[0][0])
    cluster.settle(*STEPS[0])
    with writing(cluster) as writers:
        for (before, _), (nodes, voters) in itertools.pairwise(STEPS):
            begun = time.monotonic()
            cluster.grow(nodes)
            writers.go_on()
            cluster.settle(nodes, voters)
            gaps[f"{before} -> {nodes}"] = writers.longest_gap(begun)
            writers.go_on()
        begun = time.monotonic()
        leader = cluster.by_id(cluster.wait_for_leader())
        others = [node for node in cluster.living if node is not leader]
        cluster.shrink([leader, *others[AT_LAST:]])
        writers.go_on()
        cluster.settle(AT_LAST, AT_LAST)
        gaps[f"{STEPS[-1][0]} -> {AT_LAST}"] = writers.longest_gap(begun)
        writers.go_on()
    return _changed(cluster, writers, gaps)


def restart_each(cluster: Band) -> Changed:
    """An upgrade of three: each node is stopped as soon as the one before it is ready again, the leader first and last.
    At the end all have their votes again."""
    gaps: dict[str, float] = {}
    cluster.grow(3)
    cluster.settle(3, 3)
    first = cluster.by_id(cluster.wait_for_leader())
    with writing(cluster) as writers:
        for number, node in enumerate((first, *(other for other in cluster.nodes if other is not first), first), 1):
            begun = time.monotonic()
            cluster.shrink([node])
            writers.go_on()
            node.start()
            cluster.wait_ready()
            gaps[f"restart {number}"] = writers.longest_gap(begun)
        cluster.settle(3, 3)
        writers.go_on()
    return _changed(cluster, writers, gaps)


def _changed(cluster: Band, writers: Writers, gaps: dict[str, float]) -> Changed:
    return Changed(gaps, len(writers.acknowledged), sum(missing(cluster, writers).values()), writers.odd)
