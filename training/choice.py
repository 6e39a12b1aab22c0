"""Which candidate of a unit is the one to publish, and what to say where it is no better than guessing."""

from collections.abc import Iterable

import msgspec

from consensus.progress import Standing, standings
from consensus.state import Candidate, Json
from parvada.schema import FinalResult
from training.metrics import better, greater_is_better

BASELINES = frozenset({"DummyClassifier", "DummyRegressor"})
"""They look at the target alone: there to be beaten."""


def ranked(candidates: Iterable[Candidate], metric: str) -> tuple[Standing, ...]:
    """The leaderboard's order: best first by the metric's own direction, a baseline where its score puts it."""
    return standings(candidates, metric, greater_is_better=greater_is_better(metric))


def chosen(rows: Iterable[Standing]) -> Standing | None:
    """Of `ranked` rows the best whose refit did not fail; a baseline, whatever it scores, only if there is no other."""
    fit = [row for row in _scored(rows) if not final_error(row.candidate.final)]
    return next((row for row in fit if not _is_baseline(row)), fit[0] if fit else None)


def unbeaten(rows: Iterable[Standing], metric: str) -> str:
    """A sentence when no model among `ranked` rows beats the baseline that was tried beside it, else empty."""
    scored = _scored(rows)
    baseline = next((row for row in scored if _is_baseline(row)), None)
    best = next((row for row in scored if not _is_baseline(row)), None)
    if baseline is None or best is None or baseline.mean is None or best.mean is None:
        return ""
    if better(metric, best.mean, baseline.mean):
        return ""
    scores = f"{baseline.candidate.estimator} has {baseline.mean:.4f}, {best.candidate.estimator} {best.mean:.4f}"
    return f"no model beats the baseline in {metric}: {scores}"


def final_error(final: Json) -> str:
    """Why a refit failed; empty where it did not, or was not tried."""
    return msgspec.json.decode(final, type=FinalResult).error or "" if final else ""


def _scored(rows: Iterable[Standing]) -> list[Standing]:
    return [row for row in rows if row.rank is not None and row.mean is not None]


def _is_baseline(row: Standing) -> bool:
    return row.candidate.estimator in BASELINES
