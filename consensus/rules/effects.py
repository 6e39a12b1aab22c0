"""Rules of what the trainer reports: folds started and finished, refits, units at their end. Each report carries
its epoch and changes nothing when that is not the current one."""

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from consensus.messages import FinishUnit, RecordFinal, RecordFolds, StartFolds
from consensus.rules.candidates import (
    check_fold,
    check_result,
    fail,
    finish_fold,
    known_candidate,
    skip,
    start_fold,
)
from consensus.rules.checks import Change, Stamp, check_json, cut, event, refuse
from consensus.rules.jobs import ended_if_done, job_in_epoch, running_in_epoch, with_job
from consensus.state import Candidate, CandidateId, CandidateState, ClusterState, Job

_NO_BEST = "no candidate could be fitted"
_UNIT_ENDED = "its dataset was finished before all its folds had run"


def start_folds(state: ClusterState, command: StartFolds, stamp: Stamp) -> Change:
    job = job_in_epoch(state, command.epoch, command.job)
    job, told = running_in_epoch(job, command.epoch, stamp)
    for name, fold in command.folds:
        job = _changed(job, name, fold, partial(start_fold, fold=fold, epoch=command.epoch))
    return Change(with_job(state, job), told)


def record_folds(state: ClusterState, command: RecordFolds, stamp: Stamp) -> Change:
    before = job = job_in_epoch(state, command.epoch, command.job)
    for done in command.done:
        check_result(done)
        job = _changed(job, done.candidate, done.fold, partial(finish_fold, done=done, epoch=command.epoch))
    for failed in command.failed:
        job = _changed(job, failed.candidate, failed.fold, partial(fail, fold=failed.fold, reason=failed.reason))
    if job is before:
        return Change(state)
    told = event(
        stamp, "job.folds_recorded", job.id, epoch=command.epoch, done=len(command.done), failed=len(command.failed)
    )
    return Change(with_job(state, job), (told,))


def _changed(job: Job, name: CandidateId, fold: int, change: Callable[[Candidate], Candidate]) -> Job:
    """`job` with a candidate changed, or `job` itself: nothing in a unit that is done changes any more."""
    candidate = known_candidate(job, name)
    check_fold(candidate, fold)
    if job.units[candidate.unit].done:
        return job
    after = change(candidate)
    return job if after is candidate else replace(job, candidates=job.candidates.set(name, after))


def record_final(state: ClusterState, command: RecordFinal, stamp: Stamp) -> Change:
    job = job_in_epoch(state, command.epoch, command.job)
    candidate = fitted_candidate(job, command.candidate)
    check_json("final", command.final)
    if candidate.final == command.final:
        return Change(state)
    candidate = replace(candidate, final=command.final)
    return Change(with_job(state, replace(job, candidates=job.candidates.set(candidate.id, candidate))))


def finish_unit(state: ClusterState, command: FinishUnit, stamp: Stamp) -> Change:
    job = job_in_epoch(state, command.epoch, command.job)
    if not 0 <= command.unit < len(job.units):
        refuse("not_found", f"job {job.id} has no unit {command.unit}, only 0 to {len(job.units) - 1}")
    if job.units[command.unit].done:
        return Change(state)
    _check_best(job, command)
    job, started = running_in_epoch(job, command.epoch, stamp)
    job = _finished(job, command)
    unit = job.units[command.unit]
    finished = event(
        stamp, "job.unit_finished", job.id, unit=command.unit, dataset=unit.dataset, best=unit.best, error=unit.error
    )
    job, ended = ended_if_done(job, stamp)
    return Change(with_job(state, job), (*started, finished, *ended))


def _finished(job: Job, command: FinishUnit) -> Job:
    error = cut(command.error) if command.error or command.best else _NO_BEST
    units = list(job.units)
    units[command.unit] = replace(units[command.unit], done=True, best=command.best, error=error)
    candidates = job.candidates.mutate()
    for candidate in job.candidates.values():
        if candidate.unit == command.unit and candidate.state is CandidateState.PENDING:
            candidates[candidate.id] = skip(candidate, command.error or _UNIT_ENDED)
    return replace(job, units=tuple(units), candidates=candidates.finish())


def _check_best(job: Job, command: FinishUnit) -> None:
    if command.best and fitted_candidate(job, command.best).unit != command.unit:
        refuse("invalid", f"candidate {command.best} does not belong to unit {command.unit}")


def fitted_candidate(job: Job, name: CandidateId) -> Candidate:
    """A candidate all of whose folds are finished: only such a one is refitted, published or the best."""
    candidate = known_candidate(job, name)
    if candidate.state is not CandidateState.OK:
        refuse("conflict", f"candidate {name} is {candidate.state}, not all of its folds are finished")
    return candidate
