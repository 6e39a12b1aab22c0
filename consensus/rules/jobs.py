"""Rules of a job's life: submitted, run fold by fold, finished unit by unit, cancelled, retried, sealed, deleted."""

from collections.abc import Mapping
from types import MappingProxyType

from immutables import Map
from msgspec.structs import replace

from consensus.messages import CancelJob, DeleteJob, Event, JobEnded, NewCandidate, RetryJob, SealJob, SubmitJob
from consensus.progress import by_unit
from consensus.queries import UNFINISHED, current_version
from consensus.rules import blobs
from consensus.rules.candidates import opened_again, without_running
from consensus.rules.checks import (
    TASKS,
    Change,
    Stamp,
    check_choice,
    check_count,
    check_json,
    check_name,
    check_text,
    event,
    refuse,
    shown,
)
from consensus.rules.epochs import check_current
from consensus.rules.tallies import recounted
from consensus.state import Candidate, CandidateId, ClusterState, Job, JobId, JobState, Tally, Unit

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.CANCELLED}),
        JobState.RUNNING: frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}),
        JobState.SUCCEEDED: frozenset(),
        JobState.FAILED: frozenset({JobState.QUEUED}),
        JobState.CANCELLED: frozenset({JobState.QUEUED}),
    }
)
_MAX_UNITS = 1000
MAX_CANDIDATES = 20_000
MAX_FOLDS = 1000


def submit_job(state: ClusterState, command: SubmitJob, stamp: Stamp) -> Change:
    check_name("job id", command.job)
    if command.job in state.jobs:
        refuse("conflict", f"a job with the id {command.job} exists already")
    check_text("job name", command.name, empty=True)
    check_json("spec", command.spec)
    _check_units(state, command.units)
    if command.candidates:
        _check_candidates(command)
    else:
        _check_tallies(command.units)
    job = Job(
        id=command.job,
        name=command.name,
        state=JobState.QUEUED,
        spec=command.spec,
        # Whole jobs are those of level 1, whose nodes know of no tally.
        units=tuple(replace(unit, tally=None) for unit in command.units) if command.candidates else command.units,
        candidates=Map({new.id: replace(new_candidate(new), baseline=False) for new in command.candidates}),
        created_at=stamp.at,
        created_by=stamp.actor,
    )
    told = event(stamp, "job.submitted", job.id, units=len(job.units), candidates=_expected(job))
    return Change(with_job(state, job), (told,))


def cancel_job(state: ClusterState, command: CancelJob, stamp: Stamp) -> Change:
    job = known_job(state, command.job)
    job = _moved(job, JobState.CANCELLED)
    job = replace(job, ended_at=stamp.at, candidates=_none_running(job.candidates), units=_not_running(job.units))
    return Change(with_job(state, job), (event(stamp, "job.cancelled", job.id),))


def retry_job(state: ClusterState, command: RetryJob, stamp: Stamp) -> Change:
    job = _moved(known_job(state, command.job), JobState.QUEUED)
    _check_data(state, job.units)
    units = tuple(unit if unit.best else replace(unit, done=False, error="") for unit in job.units)
    open_units = {number for number, unit in enumerate(units) if not unit.done}
    if job.sealed:
        units, candidates = _proposed_anew(job, units, open_units)
    else:
        units, candidates = _opened_again(job, units, open_units)
    job = replace(job, units=units, candidates=candidates, ended_at=0.0, error="", sealed=False)
    return Change(with_job(state, job), (event(stamp, "job.retried", job.id),))


def seal_job(state: ClusterState, command: SealJob, stamp: Stamp) -> Change:
    job = known_job(state, command.job)
    if job.state in UNFINISHED or job.ended_at != command.ended_at:
        refuse("conflict", f"job {job.id} is not the one that the file is of: it was tried again")
    if job.sealed:
        return Change(state)
    if job.state is not JobState.SUCCEEDED and any(unit.tally is None for unit in job.units):
        refuse("conflict", f"job {job.id} is kept whole and may be tried again")
    keep = {*command.keep, *(unit.best for unit in job.units if unit.best)}
    for name in keep - set(job.candidates):
        refuse("not_found", f"job {job.id} has no candidate {shown(name)}")
    held = blobs.register(state, ((command.results.digest, command.results.bytes),), (command.results,))
    kept = Map({name: job.candidates[name] for name in sorted(keep)})
    gone = (*job.segments, job.results) if job.results else job.segments
    units = tuple(_sealed(unit, mine) for unit, mine in zip(job.units, by_unit(job), strict=True))
    job = replace(job, units=units, candidates=kept, segments=(), results=command.results.digest, sealed=True)
    after = blobs.forget_unreferenced(with_job(replace(state, blobs=held), job), gone)
    return Change(after, (event(stamp, "job.sealed", job.id),))


def delete_job(state: ClusterState, command: DeleteJob, stamp: Stamp) -> Change:
    job = known_job(state, command.job)
    if job.state in UNFINISHED:
        refuse("in_use", f"job {job.id} is {job.state}: cancel it first")
    gone = (*job.segments, job.results) if job.results else job.segments
    after = blobs.forget_unreferenced(replace(state, jobs=state.jobs.delete(job.id)), gone)
    return Change(after, (event(stamp, "job.deleted", job.id, name=job.name),))


# ---------------------------------------------------------------- steps shared with the other rules of jobs
def known_job(state: ClusterState, job: JobId) -> Job:
    found = state.jobs.get(job)
    if found is None:
        check_name("job id", job)
        refuse("not_found", f"there is no job {job}")
    return found


def job_in_epoch(state: ClusterState, epoch: int, job: JobId) -> Job:
    """The job that an effect of `epoch` may change: refused for an older epoch and for a job that has ended."""
    check_current(state, epoch)
    found = known_job(state, job)
    if found.state not in UNFINISHED:
        refuse("conflict", f"job {job} has {found.state}: nothing of it may change")
    return found


def running_in_epoch(job: Job, epoch: int, stamp: Stamp) -> tuple[Job, tuple[Event, ...]]:
    """The job as `running`, this epoch among its epochs, and what to tell when that is new."""
    if job.state is JobState.RUNNING and epoch in job.epochs:
        return job, ()
    kind = "job.resumed" if job.epochs else "job.started"
    if job.state is JobState.QUEUED:
        job = _moved(job, JobState.RUNNING)
    epochs = job.epochs if epoch in job.epochs else (*job.epochs, epoch)
    job = replace(job, epochs=epochs, started_at=job.started_at or stamp.at)
    return job, (event(stamp, kind, job.id, epoch=epoch),)


def with_job(state: ClusterState, job: Job) -> ClusterState:
    return replace(state, jobs=state.jobs.set(job.id, job))


def ended_if_done(job: Job, stamp: Stamp) -> tuple[Job, tuple[Event, ...]]:
    """A job whose units are all done ends: `succeeded` when at least one has a best candidate."""
    if not all(unit.done for unit in job.units):
        return job, ()
    succeeded = any(unit.best for unit in job.units)
    error = "" if succeeded else _errors(job.units)
    job = replace(_moved(job, JobState.SUCCEEDED if succeeded else JobState.FAILED), ended_at=stamp.at, error=error)
    ended = JobEnded(job.state, job.error)
    return job, (event(stamp, "job.ended", job.id, state=ended.state, error=ended.error),)


def _opened_again(
    job: Job, units: tuple[Unit, ...], open_units: set[int]
) -> tuple[tuple[Unit, ...], Map[CandidateId, Candidate]]:
    candidates = job.candidates.mutate()
    for candidate in job.candidates.values():
        if candidate.unit in open_units:
            candidates[candidate.id] = opened_again(candidate)
    job = replace(job, candidates=candidates.finish())
    return tuple(
        replace(unit, tally=recounted(unit.tally, mine)) if unit.tally is not None and number in open_units else unit
        for number, (unit, mine) in enumerate(zip(units, by_unit(job), strict=True))
    ), job.candidates


def _proposed_anew(
    job: Job, units: tuple[Unit, ...], open_units: set[int]
) -> tuple[tuple[Unit, ...], Map[CandidateId, Candidate]]:
    """The candidates of a sealed job are in its results file, from which the trainer takes them."""
    fresh = tuple(
        replace(unit, tally=Tally(unit.tally.expected, unit.tally.folds, unit.tally.greater_is_better))
        if unit.tally is not None and number in open_units
        else unit
        for number, unit in enumerate(units)
    )
    return fresh, Map({c.id: c for c in job.candidates.values() if c.unit not in open_units})


def _sealed(unit: Unit, candidates: list[Candidate]) -> Unit:
    """A job that was kept whole gets its tallies now: what they count is no longer here."""
    if unit.tally is not None:
        return unit
    folds = max((candidate.folds_total for candidate in candidates), default=0)
    # Which way its metric points nobody asks any more: the unit has its best.
    tally = Tally(len(candidates), folds, greater_is_better=True, proposed=len(candidates), complete=True)
    return replace(unit, tally=recounted(tally, candidates))


def _not_running(units: tuple[Unit, ...]) -> tuple[Unit, ...]:
    return tuple(
        replace(unit, tally=replace(unit.tally, running=0)) if unit.tally is not None and unit.tally.running else unit
        for unit in units
    )


def _expected(job: Job) -> int:
    return len(job.candidates) or sum(unit.tally.expected for unit in job.units if unit.tally is not None)


def _errors(units: tuple[Unit, ...]) -> str:
    return "; ".join(f"{unit.dataset}: {unit.error}" for unit in units)


def _moved(job: Job, to: JobState) -> Job:
    if to not in TRANSITIONS[job.state]:
        refuse("conflict", f"job {job.id} is {job.state}, it cannot become {to}")
    return replace(job, state=to)


def _none_running(candidates: Map[CandidateId, Candidate]) -> Map[CandidateId, Candidate]:
    changed = candidates.mutate()
    for candidate in candidates.values():
        if candidate.running:
            changed[candidate.id] = without_running(candidate)
    return changed.finish()


# ---------------------------------------------------------------- checks of what is submitted
def new_candidate(new: NewCandidate, rung: int = 0) -> Candidate:
    return Candidate(
        id=new.id,
        unit=new.unit,
        estimator=new.estimator,
        params=new.params,
        seed=new.seed,
        folds_total=new.folds_total,
        rung=rung,
        baseline=new.baseline,
    )


def _check_units(state: ClusterState, units: tuple[Unit, ...]) -> None:
    check_count("number of units", len(units), 1, _MAX_UNITS)
    for unit in units:
        check_name("dataset", unit.dataset)
        check_text("target", unit.target)
        check_choice("task", unit.task, TASKS)
        check_name("metric", unit.metric)
        check_json("detail of a unit", unit.detail)
        if unit.done or unit.best or unit.error:
            refuse("invalid", f"the unit of dataset {unit.dataset} is finished before it began")
    _check_data(state, units)


def _check_tallies(units: tuple[Unit, ...]) -> None:
    for unit in units:
        tally = unit.tally
        if tally is None:
            refuse("invalid", f"number of candidates is 0, it must be 1 to {MAX_CANDIDATES}")
        check_count(f"candidates of dataset {unit.dataset}", tally.expected, 1, MAX_CANDIDATES)
        check_count(f"folds of dataset {unit.dataset}", tally.folds, 1, MAX_FOLDS)
        if tally != Tally(tally.expected, tally.folds, tally.greater_is_better):
            refuse("invalid", f"the tally of dataset {unit.dataset} counts what has not happened")


def _check_data(state: ClusterState, units: tuple[Unit, ...]) -> None:
    for unit in units:
        if current_version(state, unit.dataset, unit.version) is None:
            refuse("not_found", f"there is no version {unit.version} of a dataset {unit.dataset}")


def check_candidate(new: NewCandidate, units: int) -> None:
    check_name("candidate id", new.id)
    check_name("estimator", new.estimator)
    check_count(f"unit of candidate {new.id}", new.unit, 0, units - 1)
    check_count(f"folds of candidate {new.id}", new.folds_total, 1, MAX_FOLDS)
    check_count(f"seed of candidate {new.id}", new.seed)
    check_json(f"params of candidate {new.id}", new.params)


def _check_candidates(command: SubmitJob) -> None:
    check_count("number of candidates", len(command.candidates), 1, MAX_CANDIDATES)
    for new in command.candidates:
        check_candidate(new, len(command.units))
    if len({new.id for new in command.candidates}) != len(command.candidates):
        refuse("invalid", "two candidates have the same id")
    for number in set(range(len(command.units))) - {new.unit for new in command.candidates}:
        refuse("invalid", f"unit {number} ({command.units[number].dataset}) has no candidates")
