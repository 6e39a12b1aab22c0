"""Nodes of `fabric` joined by the in-memory log: the facts are real, and so are disks and wires."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from consensus.messages import AddDatasetVersion, HeldBlob, JoinMember
from consensus.state import Digest, Json, Member, NodeId, Part
from node.blobs.distribute import Distributor
from node.blobs.replicator import PAUSES, Pauses, Replicator
from node.tasks import Tasks
from parvada import schema
from tests.support.memory_log import MemoryLog, MemoryNetwork
from tests.unit.node.fabric import Node, fabric

DETAIL = Json(msgspec.json.encode(schema.DatasetDetail(columns=[])))


def loop_time() -> float:
    """Which a test may move."""
    return asyncio.get_running_loop().time()


class Flock:
    """Nodes with logs, distributors and replicators. A failure of a root task fails the test at the end."""

    def __init__(self, nodes: list[Node], network: MemoryNetwork, copies: int, pauses: Pauses) -> None:
        self.nodes, self.network = nodes, network
        self.logs: dict[NodeId, MemoryLog] = dict(network.logs)
        self.failures: list[str] = []
        self.tasks = Tasks(lambda name, error: self.failures.append(f"{name}: {error}"))
        self.now = 0.0
        self.replicators = {
            node.id: Replicator(
                node.id, self.logs[node.id], node.blobs, node.transfer, copies, self.clock, pauses=pauses
            )
            for node in nodes
        }
        self.distributors = {
            node.id: Distributor(node.id, self.logs[node.id], node.blobs, node.transfer, copies) for node in nodes
        }

    def clock(self) -> float:
        """Real time, and what a test has put on top of it."""
        return time.monotonic() + self.now

    @property
    def first(self) -> Node:
        return self.nodes[0]

    @property
    def log(self) -> MemoryLog:
        return self.logs[self.first.id]

    def replicate(self) -> None:
        for node in self.nodes:
            self.tasks.start(self.replicators[node.id].run(), f"replicator.{node.id[:4]}")

    async def add_dataset(self, digest: Digest, holders: tuple[NodeId, ...], name: str = "iris") -> None:
        size = self.first.blobs.size(digest)
        await self.log.propose(
            AddDatasetVersion(
                name=name,
                digest=digest,
                rows=1,
                bytes=size,
                parts=(Part(digest, 1, size),),
                target="y",
                task="binary",
                detail=DETAIL,
                blobs=(HeldBlob(digest, size, holders),),
            ),
            actor="test",
        )

    def holders(self, digest: Digest) -> set[NodeId]:
        blob = self.log.state.blobs.get(digest)
        return set(blob.holders) if blob is not None else set()

    def nodes_with(self, digest: Digest) -> list[Node]:
        return [node for node in self.nodes if node.blobs.has(digest)]

    def keepers(self, digest: Digest) -> set[NodeId]:
        return {node.id for node in self.nodes if node.blobs.has(digest)}


@contextlib.asynccontextmanager
async def flock(folder: Path, count: int, copies: int = 3, pauses: Pauses = PAUSES) -> AsyncIterator[Flock]:
    async with fabric(folder, count) as nodes:
        made = Flock(nodes, MemoryNetwork([node.id for node in nodes], monotonic=loop_time), copies, pauses)
        for number, node in enumerate(nodes):
            member = Member(node.id, f"node-{number}", ("127.0.0.1",), node.port, 1, 8080 + number, 2, "0.1.0", 0.0)
            await made.log.propose(JoinMember(member), actor="test")
        try:
            yield made
        finally:
            await made.tasks.stop()
        assert made.failures == []
