"""Ten minutes of figures in memory: what each node and each model version did in every two seconds."""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from consensus.state import NodeId
from node.telemetry.beacon import NodeBeacon
from parvada import schema
from serving.stats import ModelStats, merge

SAMPLE_SECONDS = 2.0
KEPT_SECONDS = 600.0
MAX_ROWS = 100
"""Model versions of one sample: those with most requests."""

Key = tuple[NodeId, str, int]


class NodePoint(msgspec.Struct, frozen=True):
    """One node in one step: the mean of its samples."""

    id: str
    cpu_percent: float
    memory_bytes: int
    requests_per_second: float


class Point(msgspec.Struct, frozen=True):
    """One step. `models` are the requests answered in it, latencies too."""

    at: str
    nodes: list[NodePoint]
    models: list[schema.ModelLoad]


class History(msgspec.Struct, frozen=True):
    step: float
    points: list[Point]


class _Kept(msgspec.Struct, frozen=True):
    at: float
    nodes: tuple[NodePoint, ...]
    rows: tuple[ModelStats, ...]


class Ring:
    """Samples of the last ten minutes."""

    def __init__(self) -> None:
        self._kept: deque[_Kept] = deque(maxlen=int(KEPT_SECONDS / SAMPLE_SECONDS))
        self._counted: dict[Key, ModelStats] = {}

    def add(self, at: float, beacons: Mapping[NodeId, NodeBeacon]) -> None:
        """`at` in seconds since 1970."""
        nodes = tuple(
            NodePoint(node, beacon.sample.cpu_percent, beacon.sample.memory_bytes, beacon.requests_per_second)
            for node, beacon in sorted(beacons.items())
        )
        self._kept.append(_Kept(at, nodes, self._new_rows(beacons)))

    def read(self, window: float, step: float, now: float) -> History:
        """Points of `step` seconds (2 at least) over the last `window` seconds, oldest first; empty steps left out."""
        step = max(step, SAMPLE_SECONDS)
        steps: dict[int, list[_Kept]] = {}
        for kept in self._kept:
            if kept.at > now - window:
                steps.setdefault(int(kept.at // step), []).append(kept)
        return History(step, [_point(number * step, steps[number], step) for number in sorted(steps)])

    def _new_rows(self, beacons: Mapping[NodeId, NodeBeacon]) -> tuple[ModelStats, ...]:
        """What was counted since the sample before, of all nodes together."""
        counted = {(node, row.model, row.version): row for node, beacon in beacons.items() for row in beacon.rows}
        news = [since(self._counted.get(key), row) for key, row in counted.items()]
        # A node out of sight for a while goes on from what it had counted, not from nothing.
        self._counted.update(counted)
        busy = [row for row in merge(news) if row.requests]
        return tuple(sorted(busy, key=lambda row: row.requests, reverse=True)[:MAX_ROWS])


def since(old: ModelStats | None, new: ModelStats) -> ModelStats:
    """The requests between two counts of the same node. A count that fell began anew with the node; the first is
    not news, it may be hours old."""
    if old is None:
        return ModelStats(new.model, new.version)
    if new.requests < old.requests:
        return new
    histogram = {bucket: count - old.histogram.get(bucket, 0) for bucket, count in new.histogram.items()}
    return ModelStats(
        model=new.model,
        version=new.version,
        requests=new.requests - old.requests,
        errors=new.errors - old.errors,
        rows=new.rows - old.rows,
        max_microseconds=new.max_microseconds,
        histogram={bucket: count for bucket, count in histogram.items() if count > 0},
    )


def _point(at: float, kept: Sequence[_Kept], step: float) -> Point:
    rows = merge(row for sample in kept for row in sample.rows)
    loads = [msgspec.structs.replace(row, rate=row.requests / step).load() for row in rows]
    nodes = _means(node for sample in kept for node in sample.nodes)
    return Point(datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z"), nodes, loads)


def _means(points: Iterable[NodePoint]) -> list[NodePoint]:
    found: dict[str, list[NodePoint]] = {}
    for point in points:
        found.setdefault(point.id, []).append(point)
    return [
        NodePoint(
            node,
            round(sum(each.cpu_percent for each in of_node) / len(of_node), 1),
            sum(each.memory_bytes for each in of_node) // len(of_node),
            round(sum(each.requests_per_second for each in of_node) / len(of_node), 2),
        )
        for node, of_node in sorted(found.items())
    ]
