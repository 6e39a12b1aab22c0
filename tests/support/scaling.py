"""One flock scaled up and down under load, as `docker compose up --scale` does it: how long writes stood still."""

import itertools
import time
from typing import NamedTuple

from tests.support.band import Band
from tests.support.writers import missing, writing

STEPS = ((1, 1), (3, 3), (5, 5), (7, 5))
"""Nodes, and the voters that there are to be."""
AT_LAST = 3


class Scaled(NamedTuple):
    gaps: dict[str, float]
    """Each step with the longest time in seconds between two acknowledged writes."""
    acknowledged: int
    lost: int
    """Acknowledged, and not there on every node at the end."""
    odd: list[str]
    """Answers that no change of members excuses."""


def scale(cluster: Band) -> Scaled:
    """1 -> 3 -> 5 -> 7 nodes, then four stop at once, the leader among them. Checks members and voters of each step."""
    gaps: dict[str, float] = {}
    cluster.grow(STEPS[0][0])
    cluster.settle(*STEPS[0])
    with writing(cluster) as writers:
        for (before, _), (nodes, voters) in itertools.pairwise(STEPS):
            begun = time.monotonic()
            cluster.grow(nodes)
            cluster.settle(nodes, voters)
            gaps[f"{before} -> {nodes}"] = writers.longest_gap(begun)
        begun = time.monotonic()
        leader = cluster.by_id(cluster.wait_for_leader())
        others = [node for node in cluster.living if node is not leader]
        cluster.shrink([leader, *others[AT_LAST:]])
        cluster.settle(AT_LAST, AT_LAST)
        gaps[f"{STEPS[-1][0]} -> {AT_LAST}"] = writers.longest_gap(begun)
    return Scaled(gaps, len(writers.acknowledged), sum(missing(cluster, writers).values()), writers.odd)
