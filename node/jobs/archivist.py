"""Seals jobs that have ended, and lets the oldest go when there are too many. Done by whichever node leads.

Level-triggered: each round compares the newest state with what should be. A leader that dies half-way leaves a file
that nobody refers to, and the next one begins again.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

from consensus.messages import Command, DeleteJob, HeldBlob, SealJob
from consensus.ports import CommandRejected, Log, LogError
from consensus.queries import expired_jobs, holders, sealable_jobs
from consensus.state import Digest, Job, JobId
from node import logs
from node.blobs.distribute import Distributor
from node.blobs.store import BlobStore
from node.jobs.results import Workshop
from node.peering.words import PeerError
from training.results import Sealed

_log = logs.get("node.jobs.archivist")

SEAL = "training.archive:seal"
LOOK_SECONDS = 1.0
RETRY_SECONDS = 30.0
"""After a job that could not be sealed: its segments may be on nodes that are away."""
PROPOSE_SECONDS = 10.0
FOLLOWED_SECONDS = 10.0
"""So long a job stays after its end however few are kept: whoever follows it looks once more how it ended."""

MakePresent = Callable[[Digest], Awaitable[Path]]
"""The local file of a blob, fetched if need be. Raises PeerError, DiskFull."""


class Archivist:
    """`kept`: so many ended jobs stay. `tmp` is on the file system of the blob store."""

    def __init__(
        self,
        log: Log,
        blobs: BlobStore,
        distributor: Distributor,
        make_present: MakePresent,
        workshop: Workshop,
        tmp: Path,
        kept: int,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._log, self._blobs, self._distributor = log, blobs, distributor
        self._make_present, self._workshop = make_present, workshop
        self._tmp, self._kept, self._clock, self._now = tmp, kept, clock, now
        self._not_before: dict[JobId, float] = {}

    async def run(self) -> None:
        while True:
            status = self._log.status
            if status.leader == status.me and status.quorum:
                await self._round()
            await asyncio.sleep(LOOK_SECONDS)

    async def _round(self) -> None:
        state = self._log.state
        self._not_before = {job: at for job, at in self._not_before.items() if job in state.jobs}
        followed = self._now() - FOLLOWED_SECONDS
        for job in expired_jobs(state, self._kept):
            if job.ended_at > followed:
                continue
            await self._propose(DeleteJob(job.id))
        for job in sealable_jobs(self._log.state):
            if self._not_before.get(job.id, 0.0) <= self._clock():
                await self._seal(job)

    async def _seal(self, job: Job) -> None:
        path = self._tmp / f"{uuid.uuid4().hex}.arrow"
        try:
            sealed: Sealed = await self._workshop.run(SEAL, *await self._sources(job), str(path))
            stored = await self._blobs.adopt(path)
            nodes = await self._distributor.store_durably(stored.digest)
        except Exception as error:  # whatever is wrong with one job: every leader in turn would fall over it
            self._not_before[job.id] = self._clock() + RETRY_SECONDS
            reason = str(error) or type(error).__name__
            _log.warning("job.not_sealed", job=job.id, reason=reason, again_in=RETRY_SECONDS)
            return
        finally:
            with contextlib.suppress(FileNotFoundError):
                await asyncio.to_thread(path.unlink)
        for reason in sealed.unreadable:
            _log.error("job.details_unreadable", job=job.id, reason=reason)
        if sealed.lost:
            _log.error("job.details_lost", job=job.id, folds=sealed.lost)
        results = HeldBlob(stored.digest, stored.bytes, nodes)
        if await self._propose(SealJob(job.id, job.ended_at, results, sealed.keep)):
            _log.info("job.sealed", job=job.id, candidates=sealed.candidates, folds=sealed.folds, bytes=stored.bytes)

    async def _sources(self, job: Job) -> tuple[Job, list[str], str]:
        """What the file is made of. What no member holds any more is gone: the tallies are still there."""
        found = [await self._path(digest) for digest in job.segments]
        earlier = await self._path(job.results) if job.results else None
        return job, [path for path in found if path is not None], earlier or ""

    async def _path(self, digest: Digest) -> str | None:
        try:
            return str(await self._make_present(digest))
        except PeerError:
            if holders(self._log.state, digest):
                raise
            return None

    async def _propose(self, command: Command) -> bool:
        """Whether it happened. If not, the next round looks again."""
        try:
            await self._log.propose(command, actor="leader", timeout=PROPOSE_SECONDS)
        except CommandRejected as error:
            _log.info("job.moved_on", reason=error.reason)
            return False
        except LogError as error:
            _log.warning("job.postponed", reason=str(error))
            return False
        return True
