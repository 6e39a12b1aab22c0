"""The scheduler: what to start, stop, refit and finish, from the replicated state and what is in flight. Pure and
idempotent: called again with nothing changed, it decides nothing new once its decisions are in flight."""

from collections.abc import Iterator, Set
from itertools import islice

import msgspec

from consensus.progress import candidates_of, open_candidates
from consensus.queries import is_done, unfinished_jobs
from consensus.state import Candidate, CandidateId, CandidateState, ClusterState, Job, JobId
from training.choice import chosen, final_error, ranked
from training.decoded import spec_of

REFIT = -1
"""Stands for the fold number in the work item of a refit (with the publication that follows it)."""


class Work(msgspec.Struct, frozen=True, order=True):
    """One task: a fold of a candidate, or its refit."""

    job: JobId
    candidate: CandidateId
    fold: int


class Start(msgspec.Struct, frozen=True):
    """Run these, of one job. Folds are committed as started before they run; a refit stands alone."""

    work: tuple[Work, ...]


class Stop(msgspec.Struct, frozen=True):
    """Nobody wants this result any more: its job was cancelled, its candidate failed, its time is up."""

    work: tuple[Work, ...]


class Finish(msgspec.Struct, frozen=True):
    """The unit needs no more work: `best` was refitted, or is empty and `error` says why."""

    job: JobId
    unit: int
    best: CandidateId
    error: str = ""


class Propose(msgspec.Struct, frozen=True):
    """The unit of a tallied job is about to run out of candidates: add the next ones."""

    job: JobId
    unit: int


Decision = Start | Stop | Finish | Propose


def plan(
    state: ClusterState, in_flight: Set[Work], slots: int, now: float, unready: Set[JobId] = frozenset()
) -> list[Decision]:
    """Decide what to do next.

    `in_flight`: what runs here in the current epoch (whatever else the state calls running is lost, and is started
    again). `slots`: how many tasks may be in flight. `now`: seconds since 1970, for the limit of a job's time.
    `unready`: jobs to be left alone for now. Jobs share the slots evenly, as do the datasets of a parallel job.

    Only open work is looked at: when a thousand candidates of a tallied job are finished, a call costs what the first
    one did.
    """
    views = [_JobView(job, in_flight, now) for job in unfinished_jobs(state) if job.id not in unready]
    wanted = {view.job.id: view for view in views}
    stopped = tuple(sorted(work for work in in_flight if work.job not in wanted or not wanted[work.job].wants(work)))
    decisions: list[Decision] = [Stop(stopped)] if stopped else []
    decisions += [finish for view in views for finish in view.finishes()]
    decisions += [proposal for view in views for proposal in view.proposals(slots)]
    free = slots - (len(in_flight) - len(stopped))
    chosen: dict[JobId, list[Work]] = {}
    for work in _in_turn([view.runnable() for view in views]):
        if free <= 0:
            break
        free -= 1
        if work.fold == REFIT:
            decisions.append(Start((work,)))
        else:
            chosen.setdefault(work.job, []).append(work)
    return decisions + [Start(tuple(work)) for work in chosen.values()]


def _in_turn(queues: list[Iterator[Work]]) -> Iterator[Work]:
    """One of each queue, round and round."""
    while queues:
        left = []
        for queue in queues:
            if (work := next(queue, None)) is not None:
                yield work
                left.append(queue)
        queues = left


class _JobView:
    """One unfinished job as the scheduler sees it."""

    def __init__(self, job: Job, in_flight: Set[Work], now: float) -> None:
        spec = spec_of(job)
        self.job = job
        self._in_flight = in_flight
        self._limit = spec.limits.job_seconds
        self._late = bool(job.started_at) and now - job.started_at > self._limit
        open_units = [number for number, unit in enumerate(job.units) if not unit.done]
        self._units = open_units[:1] if spec.order == "sequential" else open_units
        self._refitting = {
            job.candidates[work.candidate].unit
            for work in in_flight
            if work.job == job.id and work.fold == REFIT and work.candidate in job.candidates
        }

    def wants(self, work: Work) -> bool:
        candidate = self.job.candidates.get(work.candidate)
        if candidate is None or self.job.units[candidate.unit].done:
            return False
        if work.fold == REFIT:
            return True
        return candidate.state is CandidateState.PENDING and not is_done(candidate, work.fold) and not self._late

    def finishes(self) -> Iterator[Finish]:
        for unit in self._units:
            if self._has_open(unit) or unit in self._refitting:
                continue
            candidates = candidates_of(self.job, unit)
            best = self._best(unit, candidates)
            if best is None:
                yield Finish(self.job.id, unit, CandidateId(""), self._why_none(unit, candidates))
            elif best.final:
                cut = self._cut_short(unit, candidates)
                error = f"stopped after {self._limit:g} s (limits.job_seconds)" if cut else ""
                yield Finish(self.job.id, unit, best.id, error)

    def proposals(self, slots: int) -> Iterator[Propose]:
        """Asked for early enough that no slot waits for them, and of no more units at a time than there are slots: the
        first folds of a job of a thousand units do not wait for the candidates of the last."""
        return islice(self._wanting(slots), max(1, slots))

    def _wanting(self, slots: int) -> Iterator[Propose]:
        for unit in self._units if not self._late else ():
            tally = self.job.units[unit].tally
            if tally is not None and not tally.complete and int.from_bytes(tally.open).bit_count() <= slots:
                yield Propose(self.job.id, unit)

    def runnable(self) -> Iterator[Work]:
        """Work that is not in flight, the units of the job in turn."""
        return _in_turn([self._runnable(unit) for unit in self._units])

    def _runnable(self, unit: int) -> Iterator[Work]:
        for candidate in open_candidates(self.job, unit) if not self._late else ():
            for fold in range(candidate.folds_total):
                work = Work(self.job.id, candidate.id, fold)
                if not is_done(candidate, fold) and work not in self._in_flight:
                    yield work
        if self._has_open(unit) or unit in self._refitting:
            return
        best = self._best(unit, candidates_of(self.job, unit))
        if best is not None and not best.final:
            yield Work(self.job.id, best.id, REFIT)

    def _has_open(self, unit: int) -> bool:
        """Whether folds are still to be run, or candidates to be proposed."""
        if self._late:
            return False
        tally = self.job.units[unit].tally
        if tally is not None:
            return bool(tally.open) or not tally.complete
        return next(open_candidates(self.job, unit), None) is not None

    def _best(self, unit: int, candidates: tuple[Candidate, ...]) -> Candidate | None:
        row = chosen(ranked(candidates, self.job.units[unit].metric))
        return row.candidate if row is not None else None

    def _cut_short(self, unit: int, candidates: tuple[Candidate, ...]) -> bool:
        """Whether the time was up before all that was to be tried was, or was so much as proposed."""
        tally = self.job.units[unit].tally
        proposed = tally is None or tally.complete
        return self._late and not (proposed and all(c.state is not CandidateState.PENDING for c in candidates))

    def _why_none(self, unit: int, candidates: tuple[Candidate, ...]) -> str:
        reasons = [candidate.reason or final_error(candidate.final) for candidate in candidates]
        first = next((reason for reason in reasons if reason), "")
        if not first and any(candidate.state is CandidateState.OK for candidate in candidates):
            first = "the metric is not defined on the rows of any fold"
        if self._cut_short(unit, candidates):
            first = f"the job took longer than {self._limit:g} s (limits.job_seconds)"
        return f"no candidate could be fitted: {first}" if first else "no candidate could be fitted"
