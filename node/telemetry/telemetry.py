"""How the cluster is: this node's figures, told to all by beacon, and theirs, merged for the API."""

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from consensus.ports import Log, LogStatus
from consensus.shares import beside, cpu_shares
from consensus.state import Member, MemberStatus, NodeId
from node.blobs.store import BlobStore
from node.hardware import memory_limit
from node.processes.deathwatch import session_members
from node.telemetry.beacon import NodeBeacon, all_rows, decode_all, encode
from node.telemetry.front_stats import FrontStats
from node.telemetry.history import SAMPLE_SECONDS, History, Ring
from node.telemetry.machine import CpuMeter, Sample, disk_free, memory_of
from parvada import schema
from serving.stats import ModelStats, StatsReply, StatsReport, to_loads
from training.ports import TrainerReport

TICK_SECONDS = 1.0
MEMORY_SECONDS = 10.0
"""Between readings of the processes' memory, the only dear one (some milliseconds with Ray)."""
SUSPECT_SECONDS, DEAD_SECONDS = 3.0, 10.0
TRAINER_SECONDS = 5.0
"""A trainer that has not reported for so long is not there."""


class Telemetry:
    """`run` it as a root task. `sessions` names the leaders of the node's child processes, `owed` counts blobs."""

    def __init__(
        self,
        me: NodeId,
        name: str,
        version: str,
        log: Log,
        blobs: BlobStore,
        folder: Path,
        sessions: Callable[[], tuple[int, ...]],
        owed: Callable[[], int],
        ray_epoch: Callable[[], int] = lambda: 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._me, self._name, self._version = me, name, version
        self._log, self._blobs, self._folder = log, blobs, folder
        self._sessions, self._owed, self._ray_epoch, self._clock = sessions, owed, ray_epoch, clock
        self._fronts = FrontStats(clock)
        self._ring = Ring()
        self._cpu = CpuMeter()
        self._sample = Sample()
        self._started_at = time.time()
        self._began = clock()
        self._seen: dict[NodeId, tuple[float, float]] = {}
        self._trainer: tuple[float, TrainerReport] | None = None

    # ------------------------------------------------------------ reports from children
    def accept_stats(self, report: StatsReport) -> StatsReply:
        return self._fronts.accept(report)

    def accept_trainer(self, report: TrainerReport) -> None:
        self._trainer = (self._clock(), report)

    # ------------------------------------------------------------ answers
    def beacons(self) -> dict[NodeId, NodeBeacon]:
        """What is known of every node within reach, this one included."""
        return {**decode_all(self._log.beacons()), self._me: self.mine()}

    def mine(self) -> NodeBeacon:
        """This node now."""
        return NodeBeacon(
            id=self._me,
            name=self._name,
            version=self._version,
            started_at=self._started_at,
            sample=self._sample,
            blobs_held=len(self._blobs.digests()),
            blobs_owed=self._owed(),
            disk_full=self._blobs.room.full,
            rows=self._fronts.rows(),
            ray_epoch=self._ray_epoch(),
            trainer=self._own_trainer(),
        )

    def local_rows(self) -> tuple[ModelStats, ...]:
        """This node's counts by model version, for its own `/metrics`."""
        return self._fronts.rows()

    def nodes(self) -> list[schema.Node]:
        """Every member, by name."""
        self._observe()
        state, status, known = self._log.state, self._log.status, self.beacons()
        members = sorted(state.members.values(), key=lambda member: (member.name, member.id))
        shares = cpu_shares(members)
        found = [self._node(member, status, known.get(member.id), state.epoch.head) for member in members]
        for node, member in zip(found, members, strict=True):
            node.cpus = shares[member.id]
            node.cpus_shared_with = [str(other) for other in beside(members, member.id)]
        return found

    def full(self) -> list[str]:
        """Names of the nodes that have no room for more blobs."""
        return sorted(beacon.name for beacon in self.beacons().values() if beacon.disk_full)

    def stats(self) -> schema.Stats:
        """Merged over the nodes within reach."""
        return schema.Stats(models=to_loads(all_rows(self.beacons().values())), nodes=self.nodes())

    def history(self, window: float, step: float) -> History:
        """Points of `step` seconds over the last `window` seconds (600 at most are kept)."""
        return self._ring.read(window, step, time.time())

    def ray_nodes(self) -> list[NodeId]:
        """Nodes whose share of the present epoch's Ray is up."""
        epoch = self._log.state.epoch.number
        return [node for node, beacon in self.beacons().items() if epoch and beacon.ray_epoch == epoch]

    def trainer(self) -> TrainerReport | None:
        """The report of the present epoch's trainer, wherever it runs; None if there is none."""
        head = self._log.state.epoch
        beacon = self.beacons().get(head.head)
        found = beacon.trainer if beacon is not None else None
        return found if found is not None and found.epoch == head.number else None

    # ------------------------------------------------------------ sampling
    async def run(self) -> None:
        """Until cancelled."""
        tick = 0
        while True:
            memory = tick % round(MEMORY_SECONDS / TICK_SECONDS) == 0
            if tick % round(SAMPLE_SECONDS / TICK_SECONDS) == 0:
                self._sample = await asyncio.to_thread(self._measure, memory)
                self._ring.add(time.time(), self.beacons())
            self._observe()
            self._log.set_beacon(encode(self.mine()))
            tick += 1
            await asyncio.sleep(TICK_SECONDS)

    def _measure(self, memory: bool) -> Sample:
        used = memory_of([os.getpid(), *session_members(self._sessions())]) if memory else self._sample.memory_bytes
        return Sample(
            cpu_percent=self._cpu.percent(),
            memory_bytes=used,
            memory_total_bytes=memory_limit()[0],
            disk_free_bytes=disk_free(self._folder),
            load=os.getloadavg(),
        )

    def _observe(self) -> None:
        """Note who is connected: when a connection breaks, this is when it was last seen."""
        now, wall = self._clock(), time.time()
        for node in (self._me, *self._log.status.connected):
            self._seen[node] = (now, wall)
        for node in self._seen.keys() - self._log.state.members.keys():
            del self._seen[node]  # removed for good, or not a member yet

    def _own_trainer(self) -> TrainerReport | None:
        if self._trainer is None or self._clock() - self._trainer[0] > TRAINER_SECONDS:
            return None
        return self._trainer[1]

    def _node(self, member: Member, status: LogStatus, beacon: NodeBeacon | None, head: NodeId) -> schema.Node:
        sample = beacon.sample if beacon is not None else None
        seen = self._seen.get(member.id)
        return schema.Node(
            id=member.id,
            name=member.name,
            address=member.addresses[0] if member.addresses else "",
            api_port=member.api_port,
            role="voter" if member.id in status.voters else "learner",
            state=self._state(member, seen),
            leader=member.id == status.leader,
            ray_head=member.id == head,
            version=member.version,
            started_at=_iso(beacon.started_at) if beacon is not None else None,
            last_seen=_iso(seen[1]) if seen is not None else None,
            cpu_percent=sample.cpu_percent if sample is not None else None,
            memory_bytes=sample.memory_bytes if sample is not None else None,
            memory_total_bytes=sample.memory_total_bytes if sample is not None else None,
            disk_free_bytes=sample.disk_free_bytes if sample is not None else None,
            blobs=_blobs(beacon),
            load=list(sample.load) if sample is not None else [],
            requests_per_second=beacon.requests_per_second if beacon is not None else 0.0,
        )

    def _state(
        self, member: Member, seen: tuple[float, float] | None
    ) -> Literal["alive", "suspect", "dead", "draining"]:
        unseen = self._clock() - (seen[0] if seen is not None else self._began)
        if unseen >= DEAD_SECONDS:
            return "dead"
        if unseen >= SUSPECT_SECONDS:
            return "suspect"
        return "draining" if member.status is MemberStatus.DRAINING else "alive"


def _blobs(beacon: NodeBeacon | None) -> schema.Blobs:
    return schema.Blobs() if beacon is None else schema.Blobs(held=beacon.blobs_held, owed=beacon.blobs_owed)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
