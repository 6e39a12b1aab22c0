"""The tally of a unit: counts, sums and the best, kept up to date with every change of one of its candidates."""

import math
from collections.abc import Iterable

from msgspec.structs import replace

from consensus.queries import folds_done
from consensus.state import Candidate, CandidateState, Tally


def number_of(candidate: Candidate) -> int:
    """Its place among the candidates of its unit: of a tallied job's `{unit}.{number}`."""
    return int(candidate.id.rpartition(".")[2])


def in_epoch(tally: Tally, epoch: int) -> Tally:
    """`tally` as of an epoch in which a fold is about to start: what ran in earlier ones is lost."""
    return tally if tally.epoch == epoch else replace(tally, epoch=epoch, running=0)


def with_change(tally: Tally, before: Candidate | None, after: Candidate) -> Tally:
    """`tally` once the candidate `before` (None: a new one) has become `after`."""
    tally = replace(
        tally,
        open=_with_bit(tally.open, number_of(after), on=after.state is CandidateState.PENDING),
        done=tally.done + folds_done(after) - (folds_done(before) if before is not None else 0),
        failed=tally.failed + _missing(after, CandidateState.FAILED) - _missing(before, CandidateState.FAILED),
        skipped=tally.skipped + _missing(after, CandidateState.SKIPPED) - _missing(before, CandidateState.SKIPPED),
        fit_seconds=tally.fit_seconds + _seconds(after) - (_seconds(before) if before is not None else 0.0),
        running=tally.running + _running(after, tally.epoch) - _running(before, tally.epoch),
    )
    newly_ok = after.state is CandidateState.OK and (before is None or before.state is not CandidateState.OK)
    return _with_best(tally, after) if newly_ok else tally


def recounted(tally: Tally, candidates: Iterable[Candidate]) -> Tally:
    """`tally` with its counts and sums made anew from all candidates of the unit, in the order of their numbers."""
    fresh = Tally(
        tally.expected, tally.folds, tally.greater_is_better, tally.proposed, tally.complete, epoch=tally.epoch
    )
    for candidate in sorted(candidates, key=number_of):
        fresh = with_change(fresh, None, candidate)
    return fresh


def mean_score(candidate: Candidate) -> float | None:
    """Over the folds where it is defined; None where it is nowhere."""
    found = [score for score in candidate.scores.values() if score is not None]
    try:
        return math.fsum(found) / len(found) if found else None
    except OverflowError:
        return None


def _with_best(tally: Tally, candidate: Candidate) -> Tally:
    score = mean_score(candidate)
    # A baseline is never told as the best while candidates are to come: it is there to be beaten.
    if score is None or candidate.baseline:
        return tally
    if tally.best_score is not None:
        better = score > tally.best_score if tally.greater_is_better else score < tally.best_score
        # Of equal ones the first, whichever ended first: a recount must find the same one.
        if not better and not (score == tally.best_score and number_of(candidate) < tally.best):
            return tally
    return replace(tally, best=number_of(candidate), best_score=score)


def _missing(candidate: Candidate | None, state: CandidateState) -> int:
    if candidate is None or candidate.state is not state:
        return 0
    return candidate.folds_total - folds_done(candidate)


def _seconds(candidate: Candidate) -> float:
    if not candidate.folds:
        return candidate.fit_seconds
    return math.fsum(candidate.folds[fold].fit_seconds for fold in sorted(candidate.folds))


def _running(candidate: Candidate | None, epoch: int) -> int:
    return 0 if candidate is None else sum(1 for started in candidate.running.values() if started == epoch)


def _with_bit(bits: bytes, number: int, *, on: bool) -> bytes:
    at, mask = number >> 3, 1 << (number & 7)
    if at >= len(bits):
        if not on:
            return bits
        bits += bytes(at + 1 - len(bits))
    if bool(bits[at] & mask) == on:
        return bits
    changed = bytearray(bits)
    changed[at] ^= mask
    return bytes(changed).rstrip(b"\0")
