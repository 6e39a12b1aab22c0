"""The trainer's way to what is not in the log: candidates yet to be proposed, segments of results, and the results file
of a sealed job that is tried again."""

import asyncio
import logging
import uuid
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

import msgspec

from consensus.messages import (
    AddCandidates,
    Command,
    FoldDone,
    FoldFailed,
    FoldTally,
    HeldBlob,
    NewCandidate,
    RecordFolds,
)
from consensus.ports import CommandRejected
from consensus.queries import UNFINISHED, holders, is_done
from consensus.state import Candidate, CandidateId, ClusterState, Digest, Job, JobId, Json, Unit
from parvada.local import Proposed
from training.decoded import detail_of
from training.errors import EpochLost, TrainingError, plain
from training.proposals import proposals
from training.recipes import Scores
from training.recorder import Measured, Result
from training.results import BadResults, BadSegment, Row, decode_detail, decode_segment, encode_row
from training.tasks import FoldOutcome
from training.trainer_link import TrainerLink

log = logging.getLogger(__name__)

Costs = tuple[float | None, float, float]
"""Of a finished fold its score, its seconds of fitting and the microseconds that a row's prediction takes."""
CHUNK = 500
"""Candidates that are proposed at a time, or folds that are restored."""
CHUNK_BYTES = 256 * 1024
"""Of the parameters of the candidates that are proposed at a time."""


def fold_result(unit: Unit, candidate: Candidate, fold: int, outcome: FoldOutcome, epoch: int) -> Result:
    """What is recorded of a fold, in the form that its job takes."""
    if outcome.failed:
        return FoldFailed(candidate.id, fold, plain(outcome.failed))
    if unit.tally is None:
        scores = Json(msgspec.json.encode(outcome.scores))
        return FoldDone(candidate.id, fold, scores, outcome.fit_seconds, outcome.predict_us_per_row)
    score = outcome.scores.get(unit.metric)
    seconds, micros = outcome.fit_seconds, outcome.predict_us_per_row
    row = Row(candidate.id, fold, epoch, score, seconds, micros, msgspec.Raw(outcome.detail))
    return Measured(FoldTally(candidate.id, fold, score, seconds, micros), encode_row(row))


class Proposer:
    """Gives the candidates of units in chunks. Goes on where it was, wherever the state is."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._under_way: dict[tuple[JobId, int], tuple[int, Iterator[NewCandidate]]] = {}

    async def next(self, job: Job, number: int) -> AddCandidates | None:
        """None when all candidates of the unit are there."""
        unit = job.units[number]
        if unit.tally is None or unit.tally.complete:
            return None
        first = unit.tally.proposed
        at, left = self._under_way.pop((job.id, number), (-1, iter(())))
        if at != first:
            left = islice(proposals(detail_of(unit), number), first, None)
        made, complete = await asyncio.to_thread(_chunk, left)
        if not complete:
            self._under_way[job.id, number] = (first + len(made), left)
        return AddCandidates(self._epoch, job.id, number, first, tuple(made), complete)


def _chunk(left: Iterator[NewCandidate]) -> tuple[list[NewCandidate], bool]:
    made: list[NewCandidate] = []
    size = 0
    for new in left:
        made.append(new)
        size += len(new.params)
        if len(made) == CHUNK or size >= CHUNK_BYTES:
            return made, False
    return made, True


class Ledger:
    """`tmp`: a folder on the file system of the blob store."""

    def __init__(self, link: TrainerLink, tmp: Path) -> None:
        self._link = link
        self._tmp = tmp

    # ---------------------------------------------------------------- what the recorder needs
    def segments(self, job: JobId) -> tuple[Digest, ...] | None:
        found = self._link.state.jobs.get(job)
        return found.segments if found is not None and found.state in UNFINISHED else None

    async def store(self, segment: bytes) -> HeldBlob:
        path = self._tmp / f"{uuid.uuid4().hex}.segment"
        try:
            await asyncio.to_thread(path.write_bytes, segment)
            return await self._link.store(path)
        finally:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    async def commit(self, command: Command) -> Proposed:
        """Returns when it is applied here. Raises CommandRejected, EpochLost."""
        try:
            return await self._link.propose(command)
        except CommandRejected as rejected:
            if rejected.code == "stale_epoch":
                raise EpochLost(rejected.reason) from rejected
            raise

    # ---------------------------------------------------------------- reading
    async def scores(self, job: Job, candidate: Candidate) -> Scores:
        """Those of a candidate of a tallied job, of all folds of which the details are to be had. Raises TrainingError:
        a segment is on nodes that do not answer."""
        found: dict[int, Mapping[str, float]] = {}
        if job.results and (path := await self._present(job.results)) is not None:
            from training.archive import read_scores  # Arrow, for the rare job that was tried again

            try:
                found |= await asyncio.to_thread(read_scores, str(path), candidate.id)
            except (BadResults, OSError) as error:
                log.warning("job.file_unreadable: %s: %s", job.id, error)
        # The newest ones: while one is fetched others may be merged, and are gone.
        seen: set[Digest] = set()
        while left := [digest for digest in self._link.state.jobs.get(job.id, job).segments if digest not in seen]:
            seen.add(left[0])
            path = await self._present(left[0])
            if path is not None:
                found |= await asyncio.to_thread(_scores_in, path, job.id, candidate.id)
        return {fold: scores for fold, scores in sorted(found.items()) if fold in candidate.scores}

    async def _present(self, digest: Digest) -> Path | None:
        """None when no member holds it any more, whom one could wait for."""
        try:
            return await self._link.blob(digest)
        except TrainingError:
            if holders(self._link.state, digest):
                raise
            return None

    # ---------------------------------------------------------------- jobs that are tried again
    async def restore(self, job: JobId, proposer: Proposer, epoch: int) -> bool:
        """Propose all candidates of a job that was sealed, and bring back its finished folds. False: it was cancelled
        meanwhile. Raises TrainingError: its file is on nodes that do not answer; EpochLost."""
        results = self._link.state.jobs[job].results
        known = await self._costs(job, results)
        try:
            for number, unit in enumerate(self._link.state.jobs[job].units):
                if not unit.done and unit.tally is not None:
                    await self._propose_all(job, number, proposer)
            missing = iter([
                FoldTally(name, fold, *costs)
                for (name, fold), costs in sorted(known.items())
                if (candidate := self._candidate(job, name)) is not None and not is_done(candidate, fold)
            ])  # fmt: skip
            while tallies := tuple(islice(missing, CHUNK)):
                await self.commit(RecordFolds(epoch, job, tallies=tallies))
        except CommandRejected as refused:
            log.warning("job.not_restored: %s: %s", job, refused.reason)
            return False
        found = self._link.state.jobs.get(job)
        return found is not None and found.results == results and is_whole(found)

    async def _costs(self, job: JobId, results: Digest) -> Mapping[tuple[CandidateId, int], Costs]:
        """Of the folds in a results file; none when it is gone, or can be read by nobody: they are fitted again."""
        path = await self._present(results)
        if path is None:
            log.error("job.file_lost: %s: no node holds its results any more", job)
            return {}
        from training.archive import read_costs

        try:
            return await asyncio.to_thread(read_costs, str(path))
        except (BadResults, OSError) as error:
            log.warning("job.file_unreadable: %s: %s", job, error)
            return {}

    async def _propose_all(self, job: JobId, number: int, proposer: Proposer) -> None:
        while (found := self._link.state.jobs.get(job)) is not None and found.state in UNFINISHED:
            chunk = await proposer.next(found, number)
            if chunk is None:
                return
            await self.commit(chunk)

    def _candidate(self, job: JobId, name: CandidateId) -> Candidate | None:
        found = self._link.state.jobs.get(job)
        return found.candidates.get(name) if found is not None else None


def to_restore(state: ClusterState) -> Iterator[Job]:
    """Jobs that were sealed, and are tried again."""
    return (job for job in state.jobs.values() if job.results and job.state in UNFINISHED)


def is_whole(job: Job) -> bool:
    """Whether all candidates of its open units are proposed: what is sealed and tried again has none at first."""
    return all(unit.done or unit.tally is None or unit.tally.complete for unit in job.units)


def _scores_in(path: Path, job: JobId, candidate: CandidateId) -> dict[int, Mapping[str, float]]:
    """None of a segment that can be read by nobody: its bytes are those that its digest names."""
    try:
        rows = [row for row in decode_segment(path.read_bytes(), job) if row.candidate == candidate]
        return {row.fold: decode_detail(row).scores for row in rows}
    except (BadSegment, msgspec.MsgspecError, OSError) as error:
        log.warning("segment.unreadable: %s: %s: %s", job, path.name, error)
        return {}
