"""How a refitted candidate is published: what its version tells, and what moves an alias."""

import msgspec
import pytest

from consensus.messages import MoveAlias, RecordFinal
from consensus.state import CandidateId, Json
from parvada.schema import FinalResult, Signature, UnitDetail
from tests.unit.consensus.facts import JOB, Cluster, digest
from tests.unit.training.recipe_world import FIRST, SECOND, cluster, detail, published, recorded, unit
from training.errors import TrainingError
from training.plan import REFIT, Work
from training.recipes import Assignment, assignment, final_result, publication, version_metrics
from training.tasks import RefitOutcome

OUTCOME = RefitOutcome(
    model_bytes=5, signature=Signature(inputs=[], outputs=[]), holdout={"roc_auc": 0.7, "f1": 0.6},
    libraries={"python": "3.11"}, fit_seconds=1.5,
)  # fmt: skip


def given_for(world: Cluster, candidate: CandidateId = FIRST) -> Assignment:
    return assignment(world.state, Work(JOB, candidate, REFIT))


def test_a_publication_carries_all_that_is_known_of_the_version() -> None:
    world = cluster(params={"C": 0.5, "preprocess__scale": "none"})
    recorded(world, {"roc_auc": 0.8, "accuracy": 0.5}, {"roc_auc": 0.6, "accuracy": 1.0})
    found = publication(world.state, given_for(world), OUTCOME)
    assert found is not None
    assert (found.model, found.alias, found.move_alias) == ("flowers", "production", True)
    told = found.detail
    assert told.params == {"C": 0.5, "preprocess__scale": "none"}
    assert (told.dataset.name, told.dataset.version, told.dataset.digest) == ("iris", 1, digest(501))
    assert (told.signature, told.libraries) == (OUTCOME.signature, {"python": "3.11"})
    assert told.engine_reason
    assert told.metrics == pytest.approx(
        {"roc_auc": 0.7, "roc_auc_std": 0.1, "accuracy": 0.75, "holdout_roc_auc": 0.7, "holdout_f1": 0.6}
    )


def test_a_job_that_publishes_nothing_publishes_nothing() -> None:
    world = cluster(unit(rule=detail(publish_when="never")))
    recorded(world, {"roc_auc": 0.8})
    assert publication(world.state, given_for(world), OUTCOME) is None
    assert publication(world.state, given_for(world), RefitOutcome()) is None


def test_a_model_that_nobody_could_call_is_not_published() -> None:
    world = cluster()
    recorded(world, {"roc_auc": 0.8})
    with pytest.raises(TrainingError, match="without a signature"):
        publication(world.state, given_for(world), msgspec.structs.replace(OUTCOME, signature=None))


def moves(
    metric: str,
    before: dict[str, float] | None,
    after: float,
    *,
    task: str = "binary",
    aliased: bool = True,
    rule: UnitDetail | None = None,
) -> bool:
    """Whether the alias moves to a candidate of score `after` from a version of the metrics `before`."""
    world = cluster(unit(metric, rule=rule))
    recorded(world, {metric: after})
    if before is not None:
        recorded(world, {metric: 0.5}, {metric: 0.5}, candidate=SECOND)
        published(world, SECOND, before, task, move=aliased)
    found = publication(world.state, given_for(world), OUTCOME)
    assert found is not None
    return found.move_alias


@pytest.mark.parametrize(
    ("metric", "before", "after", "expected"),
    [
        ("roc_auc", 0.8, 0.9, True),
        ("roc_auc", 0.8, 0.8, False),
        ("roc_auc", 0.8, 0.7, False),
        ("log_loss", 0.8, 0.7, True),
        ("log_loss", 0.8, 0.8, False),
        ("log_loss", 0.8, 0.9, False),
    ],
)
def test_the_alias_moves_to_what_is_better_by_the_metric_s_own_direction(
    metric: str, before: float, after: float, expected: bool
) -> None:
    assert moves(metric, {metric: before}, after) is expected
    assert moves(metric, {metric: before}, after, rule=detail(publish_when="always")) is True


def test_the_alias_moves_where_there_is_nothing_to_compare_with() -> None:
    assert moves("roc_auc", None, 0.1), "the first version of the model"
    assert moves("roc_auc", {"roc_auc": 0.9}, 0.1, rule=detail(publish_alias="staging")), (
        "the first one under this alias"
    )
    assert moves("roc_auc", {"roc_auc": 0.9}, 0.1, aliased=False), "the version is there, the alias is not"
    assert moves("roc_auc", {"f1": 0.9}, 0.1), "judged by another metric"
    assert moves("roc_auc", {"roc_auc": 0.9}, 0.1, task="multiclass"), "of another task"


def test_it_is_the_version_under_the_alias_that_counts_not_the_newest() -> None:
    world = cluster()
    for candidate in (FIRST, SECOND):
        recorded(world, {"roc_auc": 0.8}, {"roc_auc": 0.8}, candidate=candidate)
    published(world, SECOND, {"roc_auc": 0.5})
    published(world, FIRST, {"roc_auc": 0.95}, move=False)

    def moves_now() -> bool:
        found = publication(world.state, given_for(world), OUTCOME)
        assert found is not None
        return found.move_alias

    assert moves_now(), "0.8 beats the 0.5 that answers, though 0.95 lies beside"
    world.accept(MoveAlias("flowers", "production", 2))
    assert not moves_now()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("SVC", "DummyClassifier", False),
        ("DummyClassifier", "SVC", True),
        ("DummyClassifier", "DummyClassifier", False),
    ],
)
def test_a_baseline_never_takes_the_alias_from_a_model_and_leaves_it_to_any(
    before: str, after: str, expected: bool
) -> None:
    def move(rule: UnitDetail) -> bool:
        world = cluster(unit("accuracy", rule=rule), estimators=(after, before))
        best, worst = ({"accuracy": 0.9},) * 2, ({"accuracy": 0.6},) * 2
        baseline_is_better = {FIRST: best if after.startswith("Dummy") else worst, SECOND: best}
        for candidate, scores in baseline_is_better.items():
            recorded(world, *scores, candidate=candidate)
        published(world, SECOND, {"accuracy": 0.9 if before.startswith("Dummy") else 0.6})
        found = publication(world.state, given_for(world), OUTCOME)
        assert found is not None
        return found.move_alias

    assert move(detail()) is expected
    assert move(detail(publish_when="always")) is True


# ---------------------------------------------------------------- figures
def test_metrics_are_means_over_the_folds_that_have_them() -> None:
    world = cluster()
    recorded(world, {"roc_auc": 0.8, "f1": 0.4, "strange": 1.0}, {"roc_auc": 0.6})
    given = given_for(world)
    found = version_metrics(given.unit, given.candidate, RefitOutcome(holdout={}))
    assert found == pytest.approx({"roc_auc": 0.7, "roc_auc_std": 0.1, "f1": 0.4})


def test_metrics_of_another_task_are_its_own() -> None:
    world = cluster(unit("rmse", "regression"))
    recorded(world, {"r2": 0.5, "rmse": 2.0, "mae": 1.0, "median_ae": 0.5}, {"r2": 0.7, "rmse": 1.0, "accuracy": 1.0})
    given = given_for(world)
    found = version_metrics(given.unit, given.candidate, RefitOutcome(holdout={"rmse": 3.0}))
    expected = {"r2": 0.6, "rmse": 1.5, "rmse_std": 0.5, "mae": 1.0, "median_ae": 0.5, "holdout_rmse": 3.0}
    assert found == pytest.approx(expected)


def final(text: Json) -> FinalResult:
    return msgspec.json.decode(text, type=FinalResult)


def test_the_final_result_tells_what_became_of_the_refit() -> None:
    holdout = {"roc_auc": 0.7, "f1": 0.6}
    assert final(final_result(OUTCOME)) == FinalResult(holdout=holdout, model_bytes=5, fit_seconds=1.5)
    assert final(final_result(OUTCOME, "flowers", 3)) == FinalResult(
        holdout=holdout, model_bytes=5, fit_seconds=1.5, model="flowers", version=3
    )
    assert final(final_result(RefitOutcome(failed="ValueError: no"))) == FinalResult(error="ValueError: no")


def test_the_state_takes_a_final_result_as_it_is() -> None:
    world = cluster()
    recorded(world, {"roc_auc": 0.8}, {"roc_auc": 0.8})
    world.accept(RecordFinal(1, JOB, FIRST, final_result(OUTCOME)))
    job = world.state.jobs[JOB]
    assert final(job.candidates[FIRST].final).model_bytes == 5
