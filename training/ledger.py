"""The trainer's way to what is not in the log: candidates yet to be proposed, segments of results, and the results file
of a sealed job that is tried again."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
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
from parvada.schema import UnitDetail
from training.errors import EpochLost, TrainingError
from training.proposals import proposals
from training.recipes import Scores
from training.recorder import Measured, Result
from training.results import BadSegment, Row, decode_detail, decode_segment, encode_row
from training.tasks import FoldOutcome
from training.trainer_link import TrainerLink

CHUNK = 500
"""Candidates that are proposed at a time, or folds that are restored."""
CHUNK_BYTES = 256 * 1024
"""Of the parameters of the candidates that are proposed at a time."""


def fold_result(unit: Unit, candidate: Candidate, fold: int, outcome: FoldOutcome, epoch: int) -> Result:
    """What is recorded of a fold, in the form that its job takes."""
    if outcome.failed:
        return FoldFailed(candidate.id, fold, outcome.failed)
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
            left = islice(proposals(msgspec.json.decode(unit.detail, type=UnitDetail), number), first, None)
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

    async def commit(self, command: Command) -> None:
        """Raises CommandRejected, EpochLost."""
        try:
            await self._link.propose(command)
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

            found |= await asyncio.to_thread(read_scores, str(path), candidate.id)
        for digest in job.segments:
            path = await self._present(digest)
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
    async def restored(self, job: JobId, proposer: Proposer, epoch: int) -> AsyncIterator[Command]:
        """What brings back the finished folds of a job that was sealed, each command to be committed before the next is
        asked for. Raises TrainingError: its file is on nodes that do not answer."""
        path = await self._present(self._link.state.jobs[job].results)
        if path is None:
            return
        from training.archive import read_costs

        known = await asyncio.to_thread(read_costs, str(path))
        for number, unit in enumerate(self._link.state.jobs[job].units):
            if unit.done or unit.tally is None:
                continue
            async for chunk in self._all_proposed(job, number, proposer):
                yield chunk
        missing = iter([
            FoldTally(name, fold, *costs)
            for (name, fold), costs in sorted(known.items())
            if (candidate := self._candidate(job, name)) is not None and not is_done(candidate, fold)
        ])  # fmt: skip
        while tallies := tuple(islice(missing, CHUNK)):
            yield RecordFolds(epoch, job, tallies=tallies)

    async def _all_proposed(self, job: JobId, number: int, proposer: Proposer) -> AsyncIterator[Command]:
        before = -1
        while (found := self._link.state.jobs.get(job)) is not None and found.state in UNFINISHED:
            tally = found.units[number].tally
            chunk = await proposer.next(found, number)
            if tally is None or chunk is None:
                return
            if tally.proposed == before:
                raise TrainingError(f"the candidates of unit {number} of job {job} were refused")
            before = tally.proposed
            yield chunk

    def _candidate(self, job: JobId, name: CandidateId) -> Candidate | None:
        found = self._link.state.jobs.get(job)
        return found.candidates.get(name) if found is not None else None


def to_restore(state: ClusterState) -> Iterator[JobId]:
    """Jobs that were sealed, and are tried again."""
    for job in state.jobs.values():
        if job.results and job.state in UNFINISHED:
            yield job.id


def _scores_in(path: Path, job: JobId, candidate: CandidateId) -> dict[int, Mapping[str, float]]:
    try:
        rows = [row for row in decode_segment(path.read_bytes(), job) if row.candidate == candidate]
        return {row.fold: decode_detail(row).scores for row in rows}
    except (BadSegment, msgspec.MsgspecError) as error:
        raise TrainingError(f"segment {path.name}: {error}") from error
