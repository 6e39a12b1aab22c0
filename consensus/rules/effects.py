"""Rules of what the trainer reports: candidates proposed, folds started and finished, refits, units at their end. Each
report carries its epoch and changes nothing when that is not the current one."""

from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from consensus.messages import AddCandidates, FinishUnit, RecordFinal, RecordFolds, StartFolds
from consensus.rules import blobs
from consensus.rules.candidates import (
    check_fold,
    check_result,
    check_tally,
    fail,
    finish_fold,
    known_candidate,
    skip,
    start_fold,
    tally_fold,
)
from consensus.rules.checks import Change, Stamp, check_count, check_json, cut, event, refuse, shown
from consensus.rules.jobs import (
    MAX_CANDIDATES,
    check_candidate,
    ended_if_done,
    job_in_epoch,
    new_candidate,
    running_in_epoch,
    with_job,
)
from consensus.rules.tallies import in_epoch, with_change
from consensus.state import Candidate, CandidateId, CandidateState, ClusterState, Job, Tally

_NO_BEST = "no candidate could be fitted"
_UNIT_ENDED = "its dataset was finished before all its folds had run"


def add_candidates(state: ClusterState, command: AddCandidates, stamp: Stamp) -> Change:
    job = job_in_epoch(state, command.epoch, command.job)
    tally = _tally(job, command.unit)
    if not command.first <= tally.proposed:
        refuse("conflict", f"the next candidate of unit {command.unit} is number {tally.proposed}, not {command.first}")
    fresh = command.candidates[tally.proposed - command.first :]
    if job.units[command.unit].done or tally.complete or not (fresh or command.complete):
        return Change(state)
    check_count("number of candidates", len(job.candidates) + len(fresh), 0, MAX_CANDIDATES)
    check_count("rung", command.rung)
    candidates = job.candidates.mutate()
    for number, new in enumerate(fresh, tally.proposed):
        check_candidate(new, len(job.units))
        expected = (CandidateId(f"{command.unit}.{number}"), command.unit, tally.folds)
        if (new.id, new.unit, new.folds_total) != expected:
            refuse(
                "invalid", f"candidate {new.id} is not number {number} of unit {command.unit}, of {tally.folds} folds"
            )
        candidates[new.id] = added = new_candidate(new, command.rung)
        tally = with_change(tally, None, added)
    tally = replace(tally, proposed=tally.proposed + len(fresh), complete=command.complete)
    job = _with_tally(replace(job, candidates=candidates.finish()), command.unit, tally)
    told = event(stamp, "job.candidates_added", job.id, unit=command.unit, count=len(fresh), complete=command.complete)
    return Change(with_job(state, job), (told,))


def start_folds(state: ClusterState, command: StartFolds, stamp: Stamp) -> Change:
    job = job_in_epoch(state, command.epoch, command.job)
    job, told = running_in_epoch(job, command.epoch, stamp)
    for name, fold in command.folds:
        job = _changed(job, name, fold, partial(start_fold, fold=fold, epoch=command.epoch), command.epoch)
    return Change(with_job(state, job), told)


def record_folds(state: ClusterState, command: RecordFolds, stamp: Stamp) -> Change:
    before = job = job_in_epoch(state, command.epoch, command.job)
    _check_form(job, command)
    epoch = command.epoch
    for done in command.done:
        check_result(done)
        job = _changed(job, done.candidate, done.fold, partial(finish_fold, done=done, epoch=epoch), epoch)
    for tally in command.tallies:
        check_tally(tally)
        job = _changed(job, tally.candidate, tally.fold, partial(tally_fold, done=tally), epoch)
    for failed in command.failed:
        change = partial(fail, fold=failed.fold, reason=failed.reason)
        job = _changed(job, failed.candidate, failed.fold, change, epoch)
    if job is before:
        # Its segment, if there is one, tells nothing new: nobody refers to it.
        return Change(state)
    told = event(
        stamp,
        "job.folds_recorded",
        job.id,
        epoch=epoch,
        done=len(command.done) + len(command.tallies),
        failed=len(command.failed),
    )
    return Change(_with_segment(state, job, command), (told,))


def _check_form(job: Job, command: RecordFolds) -> None:
    """A job that is kept whole takes whole results, a tallied one their tallies."""
    whole = any(unit.tally is None for unit in job.units)
    if command.done and not whole:
        refuse("invalid", f"job {job.id} is tallied: it takes no whole results")
    if whole and (command.tallies or command.segment is not None or command.replaces):
        refuse("invalid", f"job {job.id} is kept whole: it takes no tallies")
    for digest in command.replaces:
        if digest not in job.segments:
            refuse("not_found", f"job {job.id} has no segment {shown(digest)}")


def _with_segment(state: ClusterState, job: Job, command: RecordFolds) -> ClusterState:
    segment = command.segment
    if segment is None or segment.digest in job.segments:
        return with_job(state, job)
    held = blobs.register(state, ((segment.digest, segment.bytes),), (segment,))
    left = tuple(digest for digest in job.segments if digest not in command.replaces)
    after = with_job(replace(state, blobs=held), replace(job, segments=(*left, segment.digest)))
    return blobs.forget_unreferenced(after, command.replaces) if command.replaces else after


def _changed(job: Job, name: CandidateId, fold: int, change: Callable[[Candidate], Candidate], epoch: int) -> Job:
    """`job` with a candidate changed, or `job` itself: nothing in a unit that is done changes any more."""
    candidate = known_candidate(job, name)
    check_fold(candidate, fold)
    unit = job.units[candidate.unit]
    if unit.done:
        return job
    after = change(candidate)
    if after is candidate:
        return job
    job = replace(job, candidates=job.candidates.set(name, after))
    if unit.tally is None:
        return job
    return _with_tally(job, candidate.unit, with_change(in_epoch(unit.tally, epoch), candidate, after))


def _tally(job: Job, unit: int) -> Tally:
    if not 0 <= unit < len(job.units):
        refuse("not_found", f"job {job.id} has no unit {unit}, only 0 to {len(job.units) - 1}")
    tally = job.units[unit].tally
    if tally is None:
        refuse("invalid", f"job {job.id} is kept whole: it has all its candidates")
    return tally


def _with_tally(job: Job, number: int, tally: Tally) -> Job:
    units = list(job.units)
    units[number] = replace(units[number], tally=tally)
    return replace(job, units=tuple(units))


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
    units, tally = list(job.units), job.units[command.unit].tally
    candidates = job.candidates.mutate()
    for candidate in _pending(job, command.unit):
        candidates[candidate.id] = skipped = skip(candidate, command.error or _UNIT_ENDED)
        tally = with_change(tally, candidate, skipped) if tally is not None else None
    if tally is not None:
        tally = replace(tally, complete=True, running=0)
    units[command.unit] = replace(units[command.unit], done=True, best=command.best, error=error, tally=tally)
    return replace(job, units=tuple(units), candidates=candidates.finish())


def _pending(job: Job, unit: int) -> list[Candidate]:
    """In the order of their ids, so that sums of a tally are the same on all replicas."""
    return [
        job.candidates[name]
        for name in sorted(job.candidates)
        if job.candidates[name].unit == unit and job.candidates[name].state is CandidateState.PENDING
    ]


def _check_best(job: Job, command: FinishUnit) -> None:
    if command.best and fitted_candidate(job, command.best).unit != command.unit:
        refuse("invalid", f"candidate {command.best} does not belong to unit {command.unit}")


def fitted_candidate(job: Job, name: CandidateId) -> Candidate:
    """A candidate all of whose folds are finished: only such a one is refitted, published or the best."""
    candidate = known_candidate(job, name)
    if candidate.state is not CandidateState.OK:
        refuse("conflict", f"candidate {name} is {candidate.state}, not all of its folds are finished")
    return candidate
