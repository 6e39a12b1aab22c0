"""Keeps this node's store as the facts say it should be: pulls what it owes, tells what it has, drops what is spare.

Level-triggered: each round compares the newest state with the store, so a missed event costs nothing.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable

import msgspec

from consensus.messages import DropBlobs, HoldBlobs
from consensus.ports import Log, LogError
from consensus.queries import available_holders, serving_digests
from consensus.state import ClusterState, Digest, NodeId
from node import logs
from node.blobs.garbage import Garbage
from node.blobs.pace import Pace
from node.blobs.placement import ranking
from node.blobs.repair import Placement, Plan, lost, plan
from node.blobs.repair_progress import RepairProgress
from node.blobs.room import DiskFull
from node.blobs.store import BlobStore
from node.blobs.transfer import Transfer
from node.peering.words import PeerError

log = logs.get("node.blobs.replicator")

PARALLEL_PULLS = 2
GRACE_SECONDS = 600.0
"""How long a blob stays though it need not: an upload's blobs come well before the fact that refers to them, and a
process that was just told a path must find it. Counted only while this node knows the newest facts."""
BATCH = 512
PROPOSE_SECONDS = 5.0


class Pauses(msgspec.Struct, frozen=True):
    """Seconds."""

    settle: float = 0.05
    """After a change, so that a burst of commits makes one round."""
    idle: float = 5.0
    """Between rounds without a change when nothing is owed."""
    owing: float = 1.0
    """The same when something is."""
    retry_first: float = 0.5
    """After a blob could not be fetched; doubled each time."""
    retry_most: float = 30.0


PAUSES = Pauses()


class Replicator:
    """One node's repair loop. `run` it as a root task."""

    def __init__(
        self,
        me: NodeId,
        facts: Log,
        blobs: BlobStore,
        transfer: Transfer,
        copies: int,
        clock: Callable[[], float],
        grace: float = GRACE_SECONDS,
        pace: Pace | None = None,
        pauses: Pauses = PAUSES,
    ) -> None:
        """`pace`: of all that is pulled only to have enough copies; a model that is served needs none."""
        self._me, self._facts, self._blobs, self._transfer, self._clock = me, facts, blobs, transfer, clock
        self._grace, self._pace, self._pauses = grace, pace, pauses
        self.garbage = Garbage(grace)
        self._progress = RepairProgress(clock)
        self._placement = Placement(copies)
        self._wake = asyncio.Event()
        self._pulling: set[Digest] = set()
        self._retry: dict[Digest, tuple[int, float]] = {}
        self.owed = 0
        """Blobs that this node should have and has not."""

    def poke(self) -> None:
        """Look again soon: the store has changed by other hands, or a copy was found corrupt."""
        self._wake.set()

    async def lost_copy(self, digest: Digest) -> None:
        """This node's copy was found corrupt and is gone: say so, and get another."""
        try:
            await self._facts.propose(DropBlobs(self._me, (digest,)), actor="blobs")
        except LogError as error:
            log.warning("blob.loss_unrecorded", digest=digest, reason=str(error))

    def lost(self) -> frozenset[Digest]:
        """Blobs that no node within reach holds: an alarm."""
        reachable = {self._me, *self._facts.status.connected}
        return lost(self._facts.state, reachable) - self._blobs.digests()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="replicator.follow")
            while True:
                await self._round(group)
                await self._pause()

    async def _follow(self) -> None:
        """Wake at every change of what matters here; states share what they do not change."""
        seen: ClusterState | None = None
        async for item in self._facts.subscribe():
            state = item.state
            if seen is None or not _same_facts(seen, state):
                self._wake.set()
            seen = state

    async def _pause(self) -> None:
        try:
            # Not wait_for: before Python 3.12 it swallows a cancellation that comes together with the event.
            async with asyncio.timeout(self._pauses.owing if self.owed else self._pauses.idle):
                await self._wake.wait()
        except TimeoutError:
            return
        await asyncio.sleep(self._pauses.settle)
        self._wake.clear()

    async def _round(self, group: asyncio.TaskGroup) -> None:
        state = self._facts.state
        if self._me not in state.members:
            return
        # In a thread: when the members change, thousands of blobs have new owners to be computed.
        found = await asyncio.to_thread(plan, state, self._me, self._blobs.digests(), self._placement)
        self.owed = len(found.pull)
        self._progress.note({digest: state.blobs[digest].bytes for digest in found.pull})
        self._start_pulls(group, state, found.pull)
        await self._tell(found)
        await self._clear(found)

    # ------------------------------------------------------------ pulling
    def _start_pulls(self, group: asyncio.TaskGroup, state: ClusterState, wanted: frozenset[Digest]) -> None:
        self._retry = {digest: entry for digest, entry in self._retry.items() if digest in wanted}
        now, served = self._clock(), serving_digests(state)
        for digest in sorted(wanted - self._pulling, key=lambda digest: (digest not in served, digest)):
            if len(self._pulling) >= PARALLEL_PULLS:
                return
            holders = self._holders(state, digest)
            if holders and self._retry.get(digest, (0, 0.0))[1] <= now:
                self._pulling.add(digest)
                pace = None if digest in served else self._pace
                group.create_task(self._pull(digest, holders, pace), name=f"pull.{digest[:12]}")

    def _holders(self, state: ClusterState, digest: Digest) -> tuple[NodeId, ...]:
        """Who can be asked now, in an order of our own, so that not all nodes ask the same one."""
        connected = frozenset(self._facts.status.connected)
        present = [node for node in available_holders(state, digest) if node in connected]
        return ranking(Digest(f"{digest}{self._me}"), present)

    async def _pull(self, digest: Digest, holders: tuple[NodeId, ...], pace: Pace | None) -> None:
        try:
            await self._transfer.fetch(digest, holders, pace)
        except (PeerError, DiskFull) as error:
            attempts = self._retry.get(digest, (0, 0.0))[0]
            wait = min(self._pauses.retry_first * 2**attempts, self._pauses.retry_most)
            self._retry[digest] = (attempts + 1, self._clock() + wait)
            log.warning("blob.owed", digest=digest, reason=str(error), again_in=wait)
        finally:
            self._pulling.discard(digest)
            self._wake.set()

    # ------------------------------------------------------------ telling
    async def _tell(self, found: Plan) -> None:
        for digests in _batches(found.announce):
            await self._propose(HoldBlobs(self._me, digests))
        for digests in _batches(found.retract):
            log.warning("blob.retracted", count=len(digests), first=digests[0])
            await self._propose(DropBlobs(self._me, digests))

    async def _propose(self, command: HoldBlobs | DropBlobs) -> bool:
        """Whether it is committed. If not, the next round finds the same difference and proposes again."""
        try:
            await self._facts.propose(command, actor=f"node:{self._me}", timeout=PROPOSE_SECONDS)
        except LogError as error:
            log.info("replicator.postponed", command=type(command).__name__, reason=str(error))
            return False
        return True

    # ------------------------------------------------------------ clearing
    async def _clear(self, found: Plan) -> None:
        """Remove what has been needless for long enough; a spare copy only after the others know."""
        status = self._facts.status
        if not status.quorum or status.applied_index < status.commit_index:
            self.garbage.forget()  # what looks needless may be referred to by facts not seen yet
            return
        await self._blobs.clear_partial(self._grace)
        old = set(self.garbage.due(found.spare | found.unreferenced, self._blobs.take_touched(), self._clock()))
        for digests in _batches(old & found.spare):
            if not await self._propose(DropBlobs(self._me, digests)):
                old -= set(digests)
        for digest in old:
            if await self._drop(digest):
                log.info("blob.dropped", digest=digest)

    async def _drop(self, digest: Digest) -> bool:
        """Unless something has come to refer to this copy, or somebody to rely on it, since the plan was made."""

        def needless() -> bool:
            blob = self._facts.state.blobs.get(digest)
            return digest not in self._blobs.touched and (blob is None or self._me not in blob.holders)

        return await self._blobs.remove_if(digest, needless)


def _same_facts(one: ClusterState, other: ClusterState) -> bool:
    return one.blobs is other.blobs and one.models is other.models and one.members is other.members


def _batches(digests: Iterable[Digest]) -> Iterable[tuple[Digest, ...]]:
    ordered = iter(sorted(digests))
    while batch := tuple(itertools.islice(ordered, BATCH)):
        yield batch
