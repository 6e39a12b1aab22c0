"""A trainer of the simulated cluster: tallied jobs from their submission to their deletion, through every failover.

It plans with the real scheduler from the state of whichever node it asks, stores segments of results on two nodes and
then commits them, as `training.recorder` does. Whoever leads may die in between, holders may lose what they hold, jobs
are cancelled, sealed, tried again and deleted while all that goes on.
"""

import random
from typing import TYPE_CHECKING

import msgspec

from consensus.messages import (
    TALLIED_FROM,
    AddCandidates,
    AddDatasetVersion,
    BeginEpoch,
    CancelJob,
    Command,
    DeleteJob,
    DropBlobs,
    FinishUnit,
    FoldFailed,
    FoldTally,
    HeldBlob,
    HoldBlobs,
    NewCandidate,
    RaiseLevel,
    RecordFinal,
    RecordFolds,
    RetryJob,
    SealJob,
    StartFolds,
    SubmitJob,
)
from consensus.queries import UNFINISHED, is_done
from consensus.state import CandidateId, ClusterState, Digest, Job, JobId, Json, NodeId, Part, Tally, Unit
from parvada.schema import FinalResult, JobSpec
from tests.simulation.checks import Violation
from training.plan import REFIT, Finish, Propose, Start, Stop, Work, plan

if TYPE_CHECKING:
    from tests.simulation.world import World

FOLDS, CANDIDATES, SLOTS = 2, 4, 3
_SPEC = Json(msgspec.json.encode(JobSpec(datasets=["jobs-data"])))
_FINAL = Json(msgspec.json.encode(FinalResult()))
_PART = Part(Digest("f" * 64), 10, 100)


class SimTrainer:
    """Its random numbers are its own, so that a run without it is the same run as ever."""

    def __init__(self, world: "World", seed: int) -> None:
        self._world, self._rng = world, random.Random(f"trainer {seed}")
        self._epoch = 0
        self._flying: set[Work] = set()
        self._jobs = self._blobs = 0
        self._read_at = 0
        self._reading: Job | None = None
        """As somebody who asked for its results saw it, and has not fetched them yet."""
        self.told: dict[tuple[JobId, CandidateId, int], float | None] = {}
        """Scores whose recording was acknowledged."""

    def command(self, state: ClusterState) -> Command | None:
        """What comes next as far as this state tells; None when there is nothing to say."""
        self._read(state)
        if self._world.genesis not in state.members:
            return None
        if state.level < TALLIED_FROM:
            levels = [member.level for member in state.members.values()]
            return RaiseLevel(TALLIED_FROM) if min(levels) >= TALLIED_FROM and not self._world.minds else None
        if "jobs-data" not in state.datasets:
            return self._data()
        if state.epoch.number == 0 or self._rng.random() < 0.01:
            return BeginEpoch(state.epoch.number + 1, self._rng.choice(sorted(state.members)))
        if state.epoch.number != self._epoch:
            self._epoch, self._flying = state.epoch.number, set()  # another trainer, which knows nothing
        running = [job for job in state.jobs.values() if job.state in UNFINISHED]
        if not running and self._rng.random() < 0.3:
            return self._submission()
        odd = self._odd(state) if self._rng.random() < 0.12 else None
        return odd or self._finished(state) or self._decided(state)

    def answered(self, command: Command, accepted: bool) -> None:
        """What is acknowledged must be there at the end."""
        if accepted and isinstance(command, RecordFolds):
            for tally in command.tallies:
                self.told.setdefault((command.job, tally.candidate, tally.fold), tally.score)

    def check(self, state: ClusterState) -> None:
        """Every acknowledged result is in its job, or in the job's file; the first one counts. Raises Violation."""
        for (name, candidate, fold), score in self.told.items():
            job = state.jobs.get(name)
            if job is None or job.results or candidate not in job.candidates:
                continue  # deleted, or sealed: what the file has is the archivist's to prove
            if not is_done(job.candidates[candidate], fold):
                raise Violation(f"the result of fold {fold} of {name}/{candidate} is lost: {score}")

    def _read(self, state: ClusterState) -> None:
        """Somebody reads a job while it is sealed, tried again or deleted: what is not there any more has a successor,
        or the job is gone, so that reading again finds all of it. Raises Violation."""
        job = self._reading
        if job is None or self._rng.random() < 0.2:
            jobs = [state.jobs[name] for name in sorted(state.jobs)]
            self._reading = self._rng.choice(jobs) if jobs else None
            self._read_at = state.index
        elif state.index >= self._read_at:
            now = state.jobs.get(job.id)
            gone = [digest for digest in (*job.segments, job.results) if digest and digest not in state.blobs]
            if gone and now is not None and (now.segments, now.results) == (job.segments, job.results):
                raise Violation(f"{gone} of {job.id} are gone, and nothing has taken their place")

    # ------------------------------------------------------------ what a trainer does
    def _decided(self, state: ClusterState) -> Command | None:
        decisions = plan(state, self._flying, SLOTS, 0.0)
        match self._rng.choice(decisions) if decisions else None:
            case Stop(work):
                self._flying.difference_update(work)
            case Propose(job, unit):
                return self._proposal(state.jobs[job], unit)
            case Finish(job, unit, best, error):
                return FinishUnit(self._epoch, job, unit, best, error)
            case Start(work) if work[0].fold == REFIT:
                return RecordFinal(self._epoch, work[0].job, work[0].candidate, _FINAL)
            case Start(work):
                self._flying.update(work)
                return StartFolds(self._epoch, work[0].job, tuple((item.candidate, item.fold) for item in work))
        return None

    def _finished(self, state: ClusterState) -> Command | None:
        """Folds in flight that have ended: their segment is stored, and then all of it told."""
        ended = [work for work in sorted(self._flying) if self._rng.random() < 0.4 and work.job in state.jobs]
        if not ended:
            return None
        name = ended[0].job
        mine = [work for work in ended if work.job == name]
        self._flying.difference_update(mine)
        failed = tuple(FoldFailed(w.candidate, w.fold, "ValueError: no") for w in mine if self._rng.random() < 0.1)
        lost = {(fold.candidate, fold.fold) for fold in failed}
        tallies = tuple(
            FoldTally(w.candidate, w.fold, round(self._rng.random(), 3), 0.1, 1.0)
            for w in mine
            if (w.candidate, w.fold) not in lost
        )
        segments = state.jobs[name].segments
        replaced = segments[-self._rng.randrange(1, 3) :] if len(segments) > 1 and self._rng.random() < 0.5 else ()
        segment = self._stored(state) if tallies else None
        return RecordFolds(self._epoch, name, failed=failed, tallies=tallies, segment=segment, replaces=replaced)

    def _proposal(self, job: Job, unit: int) -> AddCandidates:
        tally = job.units[unit].tally
        if tally is None:
            raise Violation(f"{job.id} lost its tally")
        last = min(tally.proposed + 2, CANDIDATES)
        made = tuple(
            NewCandidate(CandidateId(f"{unit}.{n}"), unit, "Ridge", Json(b"{}"), n, FOLDS)
            for n in range(tally.proposed, last)
        )
        return AddCandidates(self._epoch, job.id, unit, tally.proposed, made, last == CANDIDATES)

    # ------------------------------------------------------------ what others do meanwhile
    def _odd(self, state: ClusterState) -> Command | None:
        jobs = sorted(state.jobs)
        if not jobs:
            return None
        job = state.jobs[self._rng.choice(jobs)]
        if job.state in UNFINISHED:
            blobs = [digest for digest in job.segments if state.blobs[digest].holders]
            if blobs and self._rng.random() < 0.7:  # a holder's disk dies, another node gets a copy
                digest = self._rng.choice(blobs)
                if self._rng.random() < 0.5:
                    return DropBlobs(self._rng.choice(state.blobs[digest].holders), (digest,))
                return HoldBlobs(self._rng.choice(sorted(state.members)), (digest,))
            return CancelJob(job.id)
        if not job.sealed and self._rng.random() < 0.6:
            return SealJob(job.id, job.ended_at, self._stored(state), tuple(sorted(job.candidates))[:2])
        return DeleteJob(job.id) if self._rng.random() < 0.5 else RetryJob(job.id)

    def _submission(self) -> SubmitJob:
        self._jobs += 1
        tally = Tally(CANDIDATES, FOLDS, greater_is_better=True)
        unit = Unit("jobs-data", 1, "y", "binary", "accuracy", Json(b"{}"), tally=tally)
        return SubmitJob(JobId(f"job-{self._jobs}"), "", _SPEC, (unit,), ())

    def _data(self) -> AddDatasetVersion:
        held = (HeldBlob(_PART.digest, _PART.bytes, (NodeId(self._world.genesis),)),)
        self._blobs += 1
        digest = Digest(f"{self._blobs + (1 << 201):064x}")
        return AddDatasetVersion("jobs-data", digest, 10, 120, (_PART,), "y", "binary", Json(b"{}"), held)

    def _stored(self, state: ClusterState) -> HeldBlob:
        """On two members, before a word of it is in the log."""
        self._blobs += 1
        members = sorted(state.members)
        holders = self._rng.sample(members, min(2, len(members)))
        return HeldBlob(Digest(f"{self._blobs + (1 << 200):064x}"), 100, tuple(holders))
