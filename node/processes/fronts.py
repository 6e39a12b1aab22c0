"""The fronts: processes that share the client port, predict, and pass everything else to the agent."""

import asyncio
import sys
from collections.abc import Callable, Mapping

from node.config import Client
from node.processes.children import Supervisor

GRACE_SECONDS = 10.0
"""For the requests that a front has when it is told to stop."""
MOST = 4
"""One answers some thousands of predictions a second: what is left of more cores is training's."""
SETTLE_SECONDS = 5.0
"""Between looks at how many there should be: by the first, the nodes that start beside this one are known."""


class Fronts:
    """One at once, more once it is known how many cores the node has: `share`. When that falls none is ended, whose
    clients would lose their calls. `run` it as a root task."""

    def __init__(
        self, supervisor: Supervisor, config: Client, environment: Mapping[str, str], share: Callable[[], int]
    ) -> None:
        """`environment`: what every child of the agent is told."""
        self._supervisor = supervisor
        self._given = config.fronts
        self._share = share
        self._environment = {
            **environment,
            "PARVADA_HOST": config.host,
            "PARVADA_PORT": str(config.port),
            "PARVADA_AUTH": config.auth,
            "PARVADA_MAX_PREDICT_MB": str(config.max_predict_mb),
            "PARVADA_MAX_PREDICT_VALUES": str(config.max_predict_values),
        }
        self._count = 0

    async def run(self) -> None:
        while True:
            wanted = self._given or max(1, min(self._share(), MOST))
            while self._count < wanted:
                self._count += 1
                argv = [sys.executable, "-m", "serving"]
                self._supervisor.spawn(argv, self._environment, f"front-{self._count}", grace=GRACE_SECONDS)
            await asyncio.sleep(SETTLE_SECONDS)
