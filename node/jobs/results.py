"""The candidates of a sealed job, which are in its results file: any node can tell them, whoever trained them."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol

from immutables import Map
from msgspec.structs import replace

from consensus.progress import is_partial
from consensus.state import Candidate, CandidateId, Digest, Job

READ = "training.archive:read_candidates"
_PIECE = 2048
"""Candidates that come at a time: what a child sends is unpacked by the event loop."""
_KEPT = 4
"""Jobs whose candidates stay in memory: whoever looks at a leaderboard looks again."""


class Workshop(Protocol):
    """Heavy work in a process of its own: `training.pool`, or its twin of the tests, in a thread."""

    async def run(self, function: str, *args: Any, seconds: float | None = None) -> Any: ...


class Results:
    """`make_present`: see `node.jobs.archivist`."""

    def __init__(self, make_present: Callable[[Digest], Awaitable[Path]], workshop: Workshop) -> None:
        self._make_present, self._workshop = make_present, workshop
        self._known: OrderedDict[Digest, Map[CandidateId, Candidate]] = OrderedDict()

    async def whole(self, job: Job) -> Job:
        """The job with all of its candidates. Raises PeerError, DiskFull, WorkshopError: its file is not to be had."""
        if not is_partial(job):
            return job
        archived = await self._candidates(job.results)
        # Of a job that is tried again the finished units are in the file alone; of the others the state knows more.
        missing = {
            name: candidate
            for name, candidate in archived.items()
            if name not in job.candidates and (job.sealed or job.units[candidate.unit].done)
        }
        return replace(job, candidates=job.candidates.update(missing))

    async def _candidates(self, digest: Digest) -> Map[CandidateId, Candidate]:
        if digest not in self._known:
            path = await self._make_present(digest)
            found: dict[CandidateId, Candidate] = {}
            while len(found) % _PIECE == 0:
                piece: list[Candidate] = await self._workshop.run(READ, str(path), len(found), _PIECE)
                found |= {candidate.id: candidate for candidate in piece}
                if not piece:
                    break
            self._known[digest] = Map(found)
        self._known.move_to_end(digest)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return self._known[digest]
