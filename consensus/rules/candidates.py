"""Rules of a candidate: its folds are finished once and for all, one failed fold fails it."""

import math
from collections.abc import Mapping
from types import MappingProxyType

from immutables import Map
from msgspec.structs import replace

from consensus.messages import FoldDone, FoldTally
from consensus.queries import folds_done, is_done
from consensus.rules.checks import check_json, check_seconds, cut, refuse, shown
from consensus.state import Candidate, CandidateId, CandidateState, FoldResult, Job, Json

_MAX_SECONDS = 1e12

TRANSITIONS: Mapping[CandidateState, frozenset[CandidateState]] = MappingProxyType(
    {
        CandidateState.PENDING: frozenset({CandidateState.OK, CandidateState.FAILED, CandidateState.SKIPPED}),
        CandidateState.OK: frozenset(),
        CandidateState.FAILED: frozenset({CandidateState.PENDING}),
        CandidateState.SKIPPED: frozenset({CandidateState.PENDING}),
    }
)


def known_candidate(job: Job, candidate: CandidateId) -> Candidate:
    found = job.candidates.get(candidate)
    if found is None:
        refuse("not_found", f"job {job.id} has no candidate {shown(candidate)}")
    return found


def check_fold(candidate: Candidate, fold: int) -> None:
    if not 0 <= fold < candidate.folds_total:
        refuse("invalid", f"candidate {candidate.id} has no fold {fold}, only 0 to {candidate.folds_total - 1}")


def check_tally(done: FoldTally) -> None:
    if done.score is not None and not math.isfinite(done.score):
        refuse("invalid", f"the score of fold {done.fold} of candidate {done.candidate} is {done.score}")
    # Bounded, so that no sum of them ever leaves the range of numbers.
    check_seconds("fit_seconds", done.fit_seconds, most=_MAX_SECONDS)
    check_seconds("predict_us_per_row", done.predict_us_per_row, most=_MAX_SECONDS)


def check_result(done: FoldDone) -> None:
    check_json("scores", done.scores)
    check_seconds("fit_seconds", done.fit_seconds)
    check_seconds("predict_us_per_row", done.predict_us_per_row)


def start_fold(candidate: Candidate, fold: int, epoch: int) -> Candidate:
    """Marks a fold as in flight; the candidate itself when there is nothing to start any more."""
    if candidate.state is not CandidateState.PENDING or is_done(candidate, fold):
        return candidate
    return replace(candidate, running=candidate.running.set(fold, epoch))


def finish_fold(candidate: Candidate, done: FoldDone, epoch: int) -> Candidate:
    """Adds a result. The first one counts; a failed candidate keeps what its other folds still bring, so that a
    retry need not fit them again."""
    if done.fold in candidate.folds:
        return candidate
    result = FoldResult(done.fold, done.scores, done.fit_seconds, done.predict_us_per_row, epoch)
    folds = candidate.folds.set(done.fold, result)
    candidate = replace(candidate, folds=folds, running=_without(candidate.running, done.fold))
    if len(folds) == candidate.folds_total and candidate.state is CandidateState.PENDING:
        return _moved(candidate, CandidateState.OK)
    return candidate


def tally_fold(candidate: Candidate, done: FoldTally) -> Candidate:
    """As `finish_fold`, in a tallied job."""
    if done.fold in candidate.scores:
        return candidate
    scores = candidate.scores.set(done.fold, done.score)
    candidate = replace(
        candidate,
        scores=scores,
        running=_without(candidate.running, done.fold),
        fit_seconds=candidate.fit_seconds + done.fit_seconds,
        predict_us=candidate.predict_us + done.predict_us_per_row,
    )
    if len(scores) == candidate.folds_total and candidate.state is CandidateState.PENDING:
        return _moved(candidate, CandidateState.OK)
    return candidate


def fail(candidate: Candidate, fold: int, reason: str) -> Candidate:
    """One fold failed, so nobody waits for the others. Finished folds and earlier reasons stay."""
    if is_done(candidate, fold) or candidate.state is not CandidateState.PENDING:
        return candidate
    return replace(
        _moved(candidate, CandidateState.FAILED), reason=cut(reason) or "failed without a reason", running=Map()
    )


def skip(candidate: Candidate, reason: str) -> Candidate:
    if candidate.state is not CandidateState.PENDING:
        return candidate
    return replace(_moved(candidate, CandidateState.SKIPPED), reason=cut(reason), running=Map())


def opened_again(candidate: Candidate) -> Candidate:
    """As a retry finds it: finished folds stay, everything else is to be done again."""
    candidate = replace(candidate, reason="", running=Map(), final=Json(b""))
    if candidate.state is CandidateState.OK:
        return candidate
    if candidate.state is not CandidateState.PENDING:
        candidate = _moved(candidate, CandidateState.PENDING)
    # A failed one may have got its missing folds meanwhile.
    return _moved(candidate, CandidateState.OK) if folds_done(candidate) == candidate.folds_total else candidate


def without_running(candidate: Candidate) -> Candidate:
    return replace(candidate, running=Map())


def _moved(candidate: Candidate, to: CandidateState) -> Candidate:
    if to not in TRANSITIONS[candidate.state]:
        refuse("conflict", f"candidate {candidate.id} is {candidate.state}, it cannot become {to}")
    return replace(candidate, state=to)


def _without(running: Map[int, int], fold: int) -> Map[int, int]:
    return running.delete(fold) if fold in running else running
