"""The room's parts, built in one line: this node's store, and who holds what."""

import asyncio
import time
from pathlib import Path

from consensus.ports import Log
from consensus.state import NodeId
from node.blobs.distribute import Distributor
from node.blobs.pace import Pace
from node.blobs.replicator import Replicator
from node.blobs.room import MEGABYTE, Limits
from node.blobs.routes import BlobRoutes
from node.blobs.scrub import Scrubber
from node.blobs.store import BlobStore
from node.blobs.transfer import Transfer
from node.config import Storage
from node.peering.build import Peering
from node.tasks import Tasks


def store(config: Storage, slot: Path) -> BlobStore:
    """To be opened in a thread."""
    limits = Limits(config.disk_quota_mb * MEGABYTE, config.disk_reserve_mb * MEGABYTE)
    return BlobStore(slot / "blobs", limits)


class Bytes:
    """Of a member, with its log."""

    def __init__(self, config: Storage, me: NodeId, log: Log, blobs: BlobStore, peers: Peering) -> None:
        self._scrub_hours = config.scrub_hours
        self.store = blobs
        self.transfer = Transfer(me, blobs, peers.client)
        self.distributor = Distributor(me, log, blobs, self.transfer, config.copies)
        pace = Pace(config.repair_mb_per_second * MEGABYTE, time.monotonic)
        self.replicator = Replicator(
            me, log, blobs, self.transfer, config.copies, time.monotonic, config.grace_seconds, pace
        )
        peers.server.mount(BlobRoutes(blobs, self.replicator.lost_copy).routes())

    def start(self, tasks: Tasks) -> None:
        tasks.start(self.replicator.run(), "replicator")
        tasks.start(self._scrubbing(), "scrub")

    async def _scrubbing(self) -> None:
        if not self._scrub_hours:
            await asyncio.Event().wait()  # switched off: a root task must not end
        await Scrubber(self.store, self._scrub_hours * 3600, self.replicator.poke).run()

    async def stop(self) -> None:
        """After the node's tasks have ended."""
        await self.transfer.stop()
