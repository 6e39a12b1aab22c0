"""How far a job is and how its candidates stand: the figures that the API, the trainer and the scheduler share.
What a metric means, and whether more of it is better, is the caller's knowledge. Both forms of a job (see
`consensus.state.Job`) are read here, and nowhere else outside the rules."""

import math
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from consensus.queries import folds_done
from consensus.state import Candidate, CandidateId, CandidateState, Job, Json, Tally


class Progress(msgspec.Struct, frozen=True):
    """Counts of folds. `failed` and `skipped` are those that will never run because their candidate failed or was
    skipped; `running` those in flight in the current epoch. Seconds are of fitting; `mean_fold_seconds` is 0
    before the first fold."""

    total: int = 0
    done: int = 0
    failed: int = 0
    skipped: int = 0
    running: int = 0
    mean_fold_seconds: float = 0.0

    @property
    def remaining(self) -> int:
        return self.total - self.done - self.failed - self.skipped

    @property
    def fraction(self) -> float:
        """0 to 1: the share that needs no more work."""
        return 1.0 if self.total == 0 else 1.0 - self.remaining / self.total


class Standing(msgspec.Struct, frozen=True):
    """A candidate's row: `rank` from 1 for those that are ok, None for the rest. `scores` in the order of the
    folds; mean and standard deviation (of the population, as NumPy's) are None without a score."""

    candidate: Candidate
    rank: int | None
    scores: tuple[float, ...]
    mean: float | None
    std: float | None
    fit_seconds: float | None
    predict_us_per_row: float | None


def candidates_of(job: Job, unit: int | None = None) -> tuple[Candidate, ...]:
    """Candidates of a unit, or of the whole job, in the order in which they were submitted (`0.2` before `0.10`)."""
    chosen = (candidate for candidate in job.candidates.values() if unit is None or candidate.unit == unit)
    return tuple(sorted(chosen, key=lambda candidate: natural(candidate.id)))


def by_unit(job: Job) -> tuple[list[Candidate], ...]:
    """All candidates, one list a unit, in no order. One look at each: a job may have a thousand units."""
    found: tuple[list[Candidate], ...] = tuple([] for _ in job.units)
    for candidate in job.candidates.values():
        found[candidate.unit].append(candidate)
    return found


def open_candidates(job: Job, unit: int) -> Iterator[Candidate]:
    """The pending ones of a unit in the order of their numbers; of a tallied job without a look at the others."""
    tally = job.units[unit].tally
    if tally is None:
        yield from (candidate for candidate in candidates_of(job, unit) if candidate.state is CandidateState.PENDING)
        return
    for at, byte in enumerate(tally.open):
        for bit in range(8) if byte else ():
            if byte >> bit & 1:
                yield job.candidates[CandidateId(f"{unit}.{at * 8 + bit}")]


def best_so_far(job: Job, unit: int) -> CandidateId | None:
    """The best candidate that is known without a ranking; None when there is none, or only a ranking could tell."""
    found = job.units[unit]
    if found.best:
        return found.best
    if found.tally is None or found.tally.best < 0:
        return None
    return CandidateId(f"{unit}.{found.tally.best}")


def is_partial(job: Job) -> bool:
    """Whether candidates of the job are only in its results file: of one that is, or once was, sealed."""
    # One that was cancelled again before it had its candidates back has fewer proposed than are in the file.
    most = sum(max(unit.tally.proposed, unit.tally.expected) for unit in job.units if unit.tally)
    return bool(job.results) and len(job.candidates) < most


def natural(name: CandidateId) -> tuple[tuple[int, int, str], ...]:
    """A sort key under which numbers between dots count as numbers."""
    return tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in name.split("."))


def job_progress(job: Job, epoch: int, unit: int | None = None) -> Progress:
    """Counts over the job, or over one unit of it; `epoch` is the current one."""
    units = job.units if unit is None else (job.units[unit],)
    tallies = [found.tally for found in units if found.tally is not None]
    return _tallied(tallies, epoch) if len(tallies) == len(units) else _counted(job, epoch, unit)


def _tallied(tallies: list[Tally], epoch: int) -> Progress:
    done = sum(tally.done for tally in tallies)
    return Progress(
        total=sum(tally.folds * _candidates(tally) for tally in tallies),
        done=done,
        failed=sum(tally.failed for tally in tallies),
        skipped=sum(tally.skipped for tally in tallies),
        running=sum(tally.running for tally in tallies if tally.epoch == epoch),
        mean_fold_seconds=sum(tally.fit_seconds for tally in tallies) / done if done else 0.0,
    )


def _candidates(tally: Tally) -> int:
    return tally.proposed if tally.complete else max(tally.expected, tally.proposed)


def _counted(job: Job, epoch: int, unit: int | None) -> Progress:
    """Of a job that is kept whole."""
    total = done = failed = skipped = running = 0
    seconds: list[float] = []
    for candidate in job.candidates.values():
        if unit is not None and candidate.unit != unit:
            continue
        missing = candidate.folds_total - folds_done(candidate)
        total += candidate.folds_total
        done += folds_done(candidate)
        failed += missing if candidate.state is CandidateState.FAILED else 0
        skipped += missing if candidate.state is CandidateState.SKIPPED else 0
        running += sum(1 for started in candidate.running.values() if started == epoch)
        seconds.extend(result.fit_seconds for result in candidate.folds.values())
    return Progress(total, done, failed, skipped, running, _mean(seconds) or 0.0)


def fold_scores(candidate: Candidate, metric: str) -> tuple[float, ...]:
    """Values of a metric in the order of the folds; folds without a finite value are left out. A candidate of a tallied
    job has those of its unit's metric alone, and they are taken for it."""
    if candidate.scores:
        return tuple(score for _, score in sorted(candidate.scores.items()) if score is not None)
    values = (_scores(candidate.folds[fold].scores).get(metric) for fold in sorted(candidate.folds))
    return tuple(value for value in values if value is not None and math.isfinite(value))


def mean_score(candidate: Candidate, metric: str) -> float | None:
    """Over the folds where the metric is defined; None where it is nowhere."""
    return _mean(fold_scores(candidate, metric))


def standings(candidates: Iterable[Candidate], metric: str, *, greater_is_better: bool) -> tuple[Standing, ...]:
    """Best first: the ok ones by their mean score (equal ones by the smaller deviation, then in submitted order;
    those without a score last), then pending, failed, skipped. The order never depends on that of a map."""
    rows = [_standing(candidate, metric) for candidate in candidates]
    sign = -1.0 if greater_is_better else 1.0
    rows.sort(key=lambda row: _place(row, sign))
    return tuple(
        msgspec.structs.replace(row, rank=place) if row.candidate.state is CandidateState.OK else row
        for place, row in enumerate(rows, 1)
    )


_ORDER: Mapping[CandidateState, int] = {
    CandidateState.OK: 0,
    CandidateState.PENDING: 1,
    CandidateState.FAILED: 2,
    CandidateState.SKIPPED: 3,
}


def _place(row: Standing, sign: float) -> tuple[int, float, float, tuple[tuple[int, int, str], ...]]:
    mean = math.inf if row.mean is None else sign * row.mean
    std = math.inf if row.std is None else row.std
    return _ORDER[row.candidate.state], mean, std, natural(row.candidate.id)


def _standing(candidate: Candidate, metric: str) -> Standing:
    scores = fold_scores(candidate, metric)
    mean = _mean(scores)
    # hypot scales: the squares of an exploded regression's errors would overflow.
    std = None if mean is None else math.hypot(*(score - mean for score in scores)) / math.sqrt(len(scores))
    seconds, micros = _costs(candidate)
    return Standing(
        candidate=candidate,
        rank=None,
        scores=scores,
        mean=mean,
        std=std,
        fit_seconds=seconds,
        predict_us_per_row=micros,
    )


def _costs(candidate: Candidate) -> tuple[float | None, float | None]:
    """Means over the finished folds: seconds of fitting, and microseconds a row of predicting."""
    if candidate.scores:
        folds = len(candidate.scores)
        return candidate.fit_seconds / folds, candidate.predict_us / folds
    whole = candidate.folds.values()
    return _mean([result.fit_seconds for result in whole]), _mean([result.predict_us_per_row for result in whole])


def _mean(values: Iterable[float]) -> float | None:
    """Exact whatever the order: replicas iterate over maps in different orders."""
    found = tuple(values)
    if not found:
        return None
    try:
        return math.fsum(found) / len(found)
    except OverflowError:
        scale = 2.0 ** len(found).bit_length()  # exact both ways, and their sum stays a number
        mean = math.fsum(value / scale for value in found) / len(found) * scale
        return max(min(found), min(max(found), mean))  # rounding may have left the range, or that of numbers


def _scores(scores: Json) -> dict[str, float | None]:
    try:
        return _OBJECT.decode(scores)
    except msgspec.MsgspecError:
        return {}


_OBJECT = msgspec.json.Decoder(dict[str, float | None])
