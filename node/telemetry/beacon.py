"""What each node tells every other one each second, and what a node knows of the others from that."""

from collections.abc import Iterable, Mapping

import msgspec

from consensus.ports import Beacon
from consensus.state import NodeId
from node import logs
from node.telemetry.machine import Sample
from serving.stats import ModelStats
from training.ports import TrainerReport

log = logs.get("node.telemetry.beacon")

MAX_BYTES = 32 * 1024
"""Of one beacon. Some fifty model versions in use fit; of more, those used last are told."""


class NodeBeacon(msgspec.Struct, frozen=True):
    """One node's state of health."""

    id: NodeId
    name: str
    version: str
    started_at: float
    """Seconds since 1970."""
    sample: Sample
    blobs_held: int = 0
    blobs_owed: int = 0
    disk_full: bool = False
    """The node refuses uploads and copies for want of room."""
    rows: tuple[ModelStats, ...] = ()
    ray_epoch: int = 0
    """The epoch in which the node's share of Ray is up; 0 for none."""
    trainer: TrainerReport | None = None
    """From the node on which the trainer runs."""

    @property
    def requests_per_second(self) -> float:
        return round(sum(row.rate for row in self.rows), 2)


def encode(beacon: NodeBeacon) -> bytes:
    """msgpack, at most MAX_BYTES: the rows that were idle for longest are left out."""
    data = msgspec.msgpack.encode(beacon)
    while len(data) > MAX_BYTES and beacon.rows:
        newest = sorted(beacon.rows, key=lambda row: row.last_ms, reverse=True)
        keep = min(len(newest) - 1, len(newest) * MAX_BYTES // len(data))
        beacon = msgspec.structs.replace(beacon, rows=tuple(newest[:keep]))
        data = msgspec.msgpack.encode(beacon)
    return data


def decode_all(beacons: Mapping[NodeId, Beacon]) -> dict[NodeId, NodeBeacon]:
    """Those that can be read: a node of another version may say what this one does not understand."""
    found = {}
    for node, beacon in beacons.items():
        try:
            found[node] = msgspec.msgpack.decode(beacon.payload, type=NodeBeacon)
        except (ValueError, RecursionError) as error:  # MsgspecError is a ValueError
            log.debug("beacon.unreadable", node=node, reason=str(error))
    return found


def all_rows(beacons: Iterable[NodeBeacon]) -> list[ModelStats]:
    return [row for beacon in beacons for row in beacon.rows]
