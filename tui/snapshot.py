"""What a screen draws: one immutable picture of the cluster, and the short history that a picture cannot hold."""

from collections import deque
from collections.abc import Sequence

import msgspec

from parvada.schema import Cluster, Job, Stats

HISTORY = 150
"""Points kept of each curve: five minutes at the default pace."""


class Snapshot(msgspec.Struct, frozen=True):
    """One round of answers. `taken_at` is this machine's monotonic time in seconds; `stale_seconds` is how old the
    node itself says its knowledge is, None if it has a quorum."""

    cluster: Cluster
    jobs: tuple[Job, ...]
    stats: Stats
    url: str
    node_id: str
    taken_at: float
    stale_seconds: float | None = None

    @property
    def requests_per_second(self) -> float:
        return sum(node.requests_per_second for node in self.cluster.nodes if node.state != "dead")

    def name_of(self, node_id: str | None) -> str:
        """A node's name, its short id if it is no member any more, "none" for nobody."""
        if not node_id:
            return "none"
        return next((node.name for node in self.cluster.nodes if node.id == node_id), node_id[:8])

    @property
    def attached_to(self) -> str:
        """The node that gave this picture, as people call it."""
        return self.name_of(self.node_id) if self.node_id else self.url.partition("://")[2]


class History:
    """Curves over the last snapshots. None stands for a time without an answer: gaps are shown, not joined."""

    def __init__(self) -> None:
        self.requests: deque[float | None] = deque(maxlen=HISTORY)
        self._cpu: dict[str, deque[float | None]] = {}

    def add(self, snapshot: Snapshot) -> None:
        self.requests.append(snapshot.requests_per_second)
        known = {node.id: node for node in snapshot.cluster.nodes}
        self._cpu = {node_id: self._cpu.get(node_id, deque(maxlen=HISTORY)) for node_id in known}
        for node_id, curve in self._cpu.items():
            node = known[node_id]
            curve.append(node.cpu_percent if node.state in ("alive", "draining") else None)

    def add_gap(self) -> None:
        self.requests.append(None)
        for curve in self._cpu.values():
            curve.append(None)

    def cpu(self, node_id: str) -> Sequence[float | None]:
        """Percent, oldest first."""
        return self._cpu.get(node_id, ())
