"""Hostile input for every parser that peers or strangers can reach. `FUZZ=200` looks 200 times longer."""

import os

from hypothesis import HealthCheck, settings

DEPTH = int(os.environ.get("FUZZ", "1"))
"""How many times the examples of a usual run."""


def examples(count: int) -> settings:
    return settings(max_examples=count * DEPTH, deadline=None, suppress_health_check=list(HealthCheck))
