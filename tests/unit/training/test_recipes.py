"""From the replicated state to tasks: what each kind of work gets, and what it says when it cannot have it."""

from collections.abc import Sequence

import msgspec
import pytest

from consensus.messages import DeleteDataset
from consensus.state import CandidateId, JobId, Unit
from parvada.schema import DatasetDetail, InputField, LimitSpec, UnitDetail
from tests.unit.consensus.facts import JOB, add, digest
from tests.unit.training.recipe_world import COLUMNS, FIRST, MANY, cluster, detail, encoded, unit
from training.errors import TrainingError
from training.plan import REFIT, Work
from training.preprocess import PreprocessOptions
from training.recipes import assignment, data_view
from training.tasks import DataView, FoldTask, RefitTask, SplitPlan


# ---------------------------------------------------------------- tasks
def test_a_fold_is_a_task_with_all_that_it_needs() -> None:
    world = cluster(
        unit(rule=detail(drop=["when"], weight="count", group="word")),
        {"C": 0.5, "kernel": "linear", "preprocess__scale": "robust", "preprocess__max_categories": 9},
        LimitSpec(fit_seconds=12.5, fit_memory_mb=300),
    )
    given = assignment(world.state, Work(JOB, CandidateId("0.1"), 1))
    task = given.task
    assert (task.function, task.data_key, task.seconds, task.cpus) == (
        "training.trial:run_fold",
        digest(501),
        12.5,
        1,
    )
    assert task.label == "job-1/0.1/1"
    assert (given.job.id, given.unit.dataset, given.candidate.id) == (JOB, "iris", "0.1")
    assert (given.dataset.name, given.dataset.version) == ("iris", 1)
    assert isinstance(task.payload, FoldTask)
    assert (task.payload.fold, task.payload.memory_mb) == (1, 300)
    recipe, view = task.payload.recipe, task.payload.view
    assert (recipe.estimator, recipe.params, recipe.seed, recipe.metric) == (
        "SVC",
        {"C": 0.5, "kernel": "linear"},
        41,
        "roc_auc",
    )
    assert recipe.preprocess == PreprocessOptions(scale="robust", max_categories=9)
    assert recipe.split == SplitPlan(3, 2, 0.25, 11)
    assert (view.target, view.task, view.weight, view.group) == ("y", "binary", "count", "word")
    assert [column.name for column in view.inputs] == ["height", "colour", "ok", "none", "note"]


def test_a_refit_is_the_same_recipe_on_all_rows() -> None:
    world = cluster(params={"C": 2})
    fold = assignment(world.state, Work(JOB, FIRST, 0)).task
    refit = assignment(world.state, Work(JOB, FIRST, REFIT)).task
    assert (refit.function, refit.label) == ("training.trial:refit", "job-1/0.0/refit")
    assert (refit.data_key, refit.seconds) == (fold.data_key, fold.seconds)
    assert isinstance(fold.payload, FoldTask)
    assert refit.payload == RefitTask(fold.payload.view, fold.payload.recipe, LimitSpec().fit_memory_mb, store=True)


def test_a_task_is_of_the_version_that_the_job_was_submitted_with() -> None:
    world = cluster()
    later = msgspec.structs.replace(add(number=7), detail=encoded(DatasetDetail(columns=COLUMNS[:2])))
    assert world.value(later)["version"] == 2
    given = assignment(world.state, Work(JOB, FIRST, 0))
    assert (given.dataset.version, given.task.data_key) == (1, digest(501))


@pytest.mark.parametrize(
    ("work", "reason"),
    [
        (Work(JobId("job-9"), FIRST, 0), "job job-9 has no candidate 0.0"),
        (Work(JOB, CandidateId("0.9"), 0), "job job-1 has no candidate 0.9"),
    ],
)
def test_what_the_state_does_not_know_is_no_task(work: Work, reason: str) -> None:
    with pytest.raises(TrainingError, match=f"^{reason}$"):
        assignment(cluster().state, work)


def test_a_dataset_that_is_gone_is_said() -> None:
    world = cluster()
    gone = msgspec.structs.replace(world.state, datasets=world.state.datasets.delete("iris"))
    with pytest.raises(TrainingError, match="dataset iris version 1 is gone"):
        assignment(gone, Work(JOB, FIRST, 0))
    assert world.reject(DeleteDataset("iris")).code == "in_use", "while the job runs nobody can delete it"


# ---------------------------------------------------------------- the view of the data
def view_of(rule: UnitDetail, target: str = "y", left_out: Sequence[str] = ()) -> DataView:
    version = cluster().state.datasets["iris"].versions[1]
    described = encoded(DatasetDetail(columns=list(COLUMNS), dropped_columns=list(left_out)))
    unit = Unit("iris", 1, target, "binary", "f1", encoded(rule))
    return data_view(unit, msgspec.structs.replace(version, detail=described))


def test_every_kind_of_column_is_an_input_with_its_type() -> None:
    assert view_of(detail()).inputs == [
        InputField(name="height", type="number", required=True),
        InputField(name="count", type="integer", required=False),
        InputField(name="colour", type="category", required=False, categories=["blue", "green", "red"]),
        InputField(name="word", type="category", required=True, categories=list(MANY[:100])),
        InputField(name="ok", type="boolean", required=True, categories=[False, True]),
        InputField(name="none", type="category", required=False),
        InputField(name="note", type="text", required=True),
        InputField(name="when", type="datetime", required=True),
    ]


def test_target_weight_group_and_what_was_dropped_are_no_inputs() -> None:
    rule = detail(weight="height", group="word", drop=["when", "note", "nonsense"])
    assert [column.name for column in view_of(rule).inputs] == ["count", "colour", "ok", "none"]
    # Another target than the dataset's own: that one is an input now.
    assert [column.name for column in view_of(rule, target="colour").inputs] == ["count", "ok", "none", "y"]


def test_all_columns_of_the_file_that_are_no_inputs_are_ignored() -> None:
    rule = detail(weight="height", group="word", drop=["when"])
    assert view_of(rule, left_out=["id", "when"]).ignored == ["y", "height", "word", "when", "id"]
    assert view_of(detail(), target="colour").ignored == ["colour"]
