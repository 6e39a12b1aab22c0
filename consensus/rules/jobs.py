"""Rules of a job's life: submitted, run fold by fold, finished unit by unit, cancelled, retried."""

from collections.abc import Mapping
from types import MappingProxyType

from immutables import Map
from msgspec.structs import replace

from consensus.messages import CancelJob, Event, JobEnded, NewCandidate, RetryJob, SubmitJob
from consensus.queries import UNFINISHED, current_version
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
)
from consensus.rules.epochs import check_current
from consensus.state import Candidate, CandidateId, ClusterState, Job, JobId, JobState, Unit

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
_MAX_CANDIDATES = 20_000
_MAX_FOLDS = 1000


def submit_job(state: ClusterState, command: SubmitJob, stamp: Stamp) -> Change:
    check_name("job id", command.job)
    if command.job in state.jobs:
        refuse("conflict", f"a job with the id {command.job} exists already")
    check_text("job name", command.name, empty=True)
    check_json("spec", command.spec)
    _check_units(state, command.units)
    _check_candidates(command)
    job = Job(
        id=command.job,
        name=command.name,
        state=JobState.QUEUED,
        spec=command.spec,
        units=command.units,
        candidates=Map({new.id: _candidate(new) for new in command.candidates}),
        created_at=stamp.at,
        created_by=stamp.actor,
    )
    told = event(stamp, "job.submitted", job.id, units=len(job.units), candidates=len(job.candidates))
    return Change(with_job(state, job), (told,))


def cancel_job(state: ClusterState, command: CancelJob, stamp: Stamp) -> Change:
    job = known_job(state, command.job)
    job = _moved(job, JobState.CANCELLED)
    job = replace(job, ended_at=stamp.at, candidates=_none_running(job.candidates))
    return Change(with_job(state, job), (event(stamp, "job.cancelled", job.id),))


def retry_job(state: ClusterState, command: RetryJob, stamp: Stamp) -> Change:
    job = _moved(known_job(state, command.job), JobState.QUEUED)
    _check_data(state, job.units)
    units = tuple(unit if unit.best else replace(unit, done=False, error="") for unit in job.units)
    open_units = {number for number, unit in enumerate(units) if not unit.done}
    candidates = job.candidates.mutate()
    for candidate in job.candidates.values():
        if candidate.unit in open_units:
            candidates[candidate.id] = opened_again(candidate)
    job = replace(job, units=units, candidates=candidates.finish(), ended_at=0.0, error="")
    return Change(with_job(state, job), (event(stamp, "job.retried", job.id),))


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
def _candidate(new: NewCandidate) -> Candidate:
    return Candidate(new.id, new.unit, new.estimator, new.params, new.seed, new.folds_total)


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


def _check_data(state: ClusterState, units: tuple[Unit, ...]) -> None:
    for unit in units:
        if current_version(state, unit.dataset, unit.version) is None:
            refuse("not_found", f"there is no version {unit.version} of a dataset {unit.dataset}")


def _check_candidates(command: SubmitJob) -> None:
    check_count("number of candidates", len(command.candidates), 1, _MAX_CANDIDATES)
    for new in command.candidates:
        check_name("candidate id", new.id)
        check_name("estimator", new.estimator)
        check_count(f"unit of candidate {new.id}", new.unit, 0, len(command.units) - 1)
        check_count(f"folds of candidate {new.id}", new.folds_total, 1, _MAX_FOLDS)
        check_count(f"seed of candidate {new.id}", new.seed)
        check_json(f"params of candidate {new.id}", new.params)
    if len({new.id for new in command.candidates}) != len(command.candidates):
        refuse("invalid", "two candidates have the same id")
    for number in set(range(len(command.units))) - {new.unit for new in command.candidates}:
        refuse("invalid", f"unit {number} ({command.units[number].dataset}) has no candidates")
