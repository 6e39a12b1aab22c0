"""Which candidate of a unit is the one to publish, and what to say where it is no better than guessing."""

from collections.abc import Iterable

import msgspec

from consensus.progress import Standing, standings
from consensus.state import Candidate, Json
from parvada.schema import FinalResult
from training.metrics import better, greater_is_better

BASELINES = frozenset({"DummyClassifier", "DummyRegressor"})
"""They look at the target alone: there to be beaten."""


def chosen(candidates: Iterable[Candidate], metric: str) -> Standing | None:
    """The best one whose refit did not fail; a baseline, whatever it scores, only where there is nothing else."""
    scored = [row for row in _scored(candidates, metric) if not final_error(row.candidate.final)]
    return next((row for row in scored if not _is_baseline(row)), scored[0] if scored else None)


def unbeaten(candidates: Iterable[Candidate], metric: str) -> str:
    """A sentence when no model beats the baseline that was tried beside it, else empty."""
    rows = _scored(candidates, metric)
    baseline = next((row for row in rows if _is_baseline(row)), None)
    best = next((row for row in rows if not _is_baseline(row)), None)
    if baseline is None or best is None or baseline.mean is None or best.mean is None:
        return ""
    if better(metric, best.mean, baseline.mean):
        return ""
    scores = f"{baseline.candidate.estimator} has {baseline.mean:.4f}, {best.candidate.estimator} {best.mean:.4f}"
    return f"no model beats the baseline in {metric}: {scores}"


def final_error(final: Json) -> str:
    """Why a refit failed; empty where it did not, or was not tried."""
    return msgspec.json.decode(final, type=FinalResult).error or "" if final else ""


def _scored(candidates: Iterable[Candidate], metric: str) -> list[Standing]:
    ranked = standings(candidates, metric, greater_is_better=greater_is_better(metric))
    return [row for row in ranked if row.rank is not None and row.mean is not None]


def _is_baseline(row: Standing) -> bool:
    return row.candidate.estimator in BASELINES
