"""The fronts: processes that share the client port, predict, and pass everything else to the agent."""

import sys
from collections.abc import Mapping

from node.config import Client
from node.processes.children import Supervisor

GRACE_SECONDS = 10.0
"""For the requests that a front has when it is told to stop."""


def start_fronts(supervisor: Supervisor, config: Client, count: int, environment: Mapping[str, str]) -> None:
    """`environment`: what every child of the agent is told."""
    more = {
        "PARVADA_HOST": config.host,
        "PARVADA_PORT": str(config.port),
        "PARVADA_AUTH": config.auth,
        "PARVADA_MAX_PREDICT_MB": str(config.max_predict_mb),
        "PARVADA_MAX_PREDICT_VALUES": str(config.max_predict_values),
    }
    for number in range(1, count + 1):
        argv = [sys.executable, "-m", "serving"]
        supervisor.spawn(argv, {**environment, **more}, f"front-{number}", grace=GRACE_SECONDS)
