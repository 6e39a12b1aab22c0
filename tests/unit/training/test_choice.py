"""What is published of a unit: the best model, a baseline only for want of any; and a word where none beats it."""

import pytest
from immutables import Map

from consensus.messages import RecordFinal
from consensus.progress import candidates_of
from consensus.state import Candidate, CandidateId, CandidateState, FoldResult
from parvada.schema import FinalResult
from tests.unit.consensus.facts import JOB
from tests.unit.training.recipe_world import FIRST, SECOND, cluster, encoded, recorded, unit
from training.choice import chosen, ranked, unbeaten
from training.plan import REFIT, Finish, Start, Work, plan


def candidate(number: int, estimator: str, *scores: float, metric: str = "accuracy", error: str = "") -> Candidate:
    """One whose folds are done; without scores one that failed."""
    folds = {fold: FoldResult(fold, encoded({metric: score}), 1.0, 1.0, 1) for fold, score in enumerate(scores)}
    return Candidate(
        id=CandidateId(f"0.{number}"),
        unit=0,
        estimator=estimator,
        params=encoded({}),
        seed=1,
        folds_total=2,
        state=CandidateState.OK if scores else CandidateState.FAILED,
        folds=Map(folds),
        final=encoded(FinalResult(error=error)) if error else encoded(FinalResult()),
    )


@pytest.mark.parametrize(
    ("candidates", "best"),
    [
        ([candidate(0, "DummyClassifier", 0.96), candidate(1, "GaussianNB", 0.6), candidate(2, "SVC", 0.9)], "SVC"),
        ([candidate(0, "DummyRegressor", 0.0), candidate(1, "Ridge", -0.5)], "Ridge"),
        ([candidate(0, "DummyClassifier", 0.5), candidate(1, "SVC", 0.9)], "SVC"),
        ([candidate(0, "DummyClassifier", 0.5), candidate(1, "SVC")], "DummyClassifier"),
        ([candidate(0, "DummyClassifier", 0.5), candidate(1, "SVC", 0.9, error="no")], "DummyClassifier"),
        ([candidate(0, "DummyClassifier", 0.5), candidate(1, "SVC", 0.9, metric="f1")], "DummyClassifier"),
        ([candidate(0, "SVC")], None),
    ],
)  # fmt: skip
def test_a_baseline_is_chosen_only_where_no_model_could_be_fitted(
    candidates: list[Candidate], best: str | None
) -> None:
    row = chosen(ranked(candidates, "accuracy"))
    assert (row.candidate.estimator if row else None) == best


@pytest.mark.parametrize(
    ("metric", "baseline", "model", "said"),
    [
        ("accuracy", 0.96, 0.95, "no model beats the baseline in accuracy: DummyClassifier has 0.9600, SVC 0.9500"),
        ("accuracy", 0.96, 0.96, "no model beats the baseline in accuracy: DummyClassifier has 0.9600, SVC 0.9600"),
        ("accuracy", 0.96, 0.97, ""),
        ("log_loss", 0.3, 0.4, "no model beats the baseline in log_loss: DummyClassifier has 0.3000, SVC 0.4000"),
        ("log_loss", 0.3, 0.2, ""),
    ],
)
def test_that_nothing_beats_the_baseline_is_said(metric: str, baseline: float, model: float, said: str) -> None:
    both = [candidate(0, "DummyClassifier", baseline, metric=metric), candidate(1, "SVC", model, metric=metric)]
    assert unbeaten(ranked(both, metric), metric) == said


def test_alone_a_baseline_and_a_model_are_not_compared() -> None:
    dummy, model, failed = candidate(0, "DummyClassifier", 0.9), candidate(1, "SVC", 0.1), candidate(2, "SVC")
    for alone in ([dummy], [model], [dummy, failed]):
        assert unbeaten(ranked(alone, "accuracy"), "accuracy") == ""


def test_the_scheduler_refits_and_finishes_the_model_and_not_the_better_baseline() -> None:
    world = cluster(unit("accuracy"), estimators=("DummyClassifier", "SVC"))
    recorded(world, {"accuracy": 0.96}, {"accuracy": 0.96})
    recorded(world, {"accuracy": 0.5}, {"accuracy": 0.6}, candidate=SECOND)
    assert plan(world.state, set(), 4, 1000.0) == [Start((Work(JOB, SECOND, REFIT),))]
    world.accept(RecordFinal(1, JOB, SECOND, encoded(FinalResult())))
    assert plan(world.state, set(), 4, 1000.0) == [Finish(JOB, 0, SECOND)]
    assert [found.id for found in candidates_of(world.state.jobs[JOB])] == [FIRST, SECOND]


def test_a_metric_that_no_fold_has_is_given_as_the_reason() -> None:
    world = cluster(unit("roc_auc"))
    for each in (FIRST, SECOND):
        recorded(world, {"accuracy": 1.0}, {"accuracy": 1.0}, candidate=each)
    (finish,) = plan(world.state, set(), 4, 1000.0)
    assert isinstance(finish, Finish)
    assert finish.error == "no candidate could be fitted: the metric is not defined on the rows of any fold"
