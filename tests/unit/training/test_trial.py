"""A fold and a refit: same seed, same scores; every default model can be loaded as serving will load it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.datasets import load_iris
from threadpoolctl import threadpool_limits

from parvada.columns import to_frame
from parvada.trusted import TRUSTED_TYPES
from tests.unit.training.data import SPLIT, mixed_table, prepared
from training import catalog
from training.frames import Prepared
from training.preprocess import PreprocessOptions
from training.tasks import FoldTask, Recipe, RefitTask
from training.trial import refit, refitted, run_fold
from training.worker import execute

METRIC = {"binary": "accuracy", "multiclass": "accuracy", "regression": "r2"}
TABLES: dict[str, list[str]] = {}
CASES = [
    (task, name)
    for task in ("binary", "multiclass", "regression")
    for name in catalog.default_names(catalog.kind_of(task))
]


def recipe(data: Prepared, name: str, **params: object) -> Recipe:
    kind = catalog.kind_of(data.view.task)
    checked = catalog.check(kind, name, params, "models[0]", catalog.Size(len(data.y)))
    small = {"n_estimators": 5, "max_iter": 20} if name not in ("LogisticRegression", "LinearSVC") else {}
    checked |= {key: value for key, value in small.items() if key in checked}
    return Recipe(name, checked, PreprocessOptions(), 11, METRIC[data.view.task], SPLIT)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker; threads that wait for one another make small fits slow on a busy machine."""
    with threadpool_limits(limits=1):
        yield


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Prepared]:
    folder = tmp_path_factory.mktemp("tables")
    made = {task: prepared(folder / task, mixed_table(task)) for task in METRIC}
    TABLES.update({task: [str(path) for path in (folder / task).glob("*.parquet")] for task in METRIC})
    return made


def test_odd_names_of_columns_are_learned_from(tmp_path: Path) -> None:
    names = {"height": "Prix\u00a0HT", "colour": "Code\n postal", "note": "Ver\u00adkauf, x"}
    data = prepared(tmp_path, mixed_table("binary").rename(columns=names))
    assert set(names.values()) < {field.name for field in data.view.inputs}
    assert not refit(RefitTask(data.view, recipe(data, "LogisticRegression")), data).failed


@pytest.mark.parametrize(("task", "name"), CASES)
def test_default_model_is_saved_loaded_by_our_list_and_predicts_the_same(
    tables: dict[str, Prepared], task: str, name: str
) -> None:
    data = tables[task]
    outcome, saved = refitted(RefitTask(data.view, recipe(data, name)), data)
    assert (outcome.failed, outcome.model_bytes) == ("", len(saved))
    assert METRIC[task] in outcome.holdout
    loaded = skops.io.loads(saved, trusted=list(TRUSTED_TYPES))
    # Rows as they come to serving: plain values, missing ones None, a category that training never saw.
    row = {"height": [None, 1.5], "count": [3, 4], "colour": ["violet", None], "ok": [True, False]}
    row |= {"when": ["2025-02-03", "2024-01-01T10:00:00Z"], "note": ["a bird", "cat and dog"]}
    assert outcome.signature is not None
    assert outcome.signature.ignored == ["y"]
    predicted = loaded.predict(to_frame(row, outcome.signature.inputs))
    assert len(predicted) == 2
    if task != "regression":
        assert outcome.signature.outputs[0].classes == sorted(set(data.y.tolist()))


def test_models_of_few_numbers_hold_only_trusted_types(tmp_path: Path) -> None:
    """Low dimensions make the neighbours' trees, which mixed tables do not."""
    data = prepared(tmp_path, load_iris(as_frame=True).frame)
    assert (data.view.task, data.y.dtype.kind) == ("multiclass", "i")
    for name in ("KNeighborsClassifier", "RadiusNeighborsClassifier", "CalibratedClassifierCV", "MLPClassifier"):
        outcome = refit(RefitTask(data.view, recipe(data, name)), data)
        assert not outcome.failed, (name, outcome.failed)
        assert outcome.signature is not None
        assert outcome.signature.outputs[0].classes == [0, 1, 2]


def test_trusted_types_are_no_wider_than_sklearn_and_numpy() -> None:
    assert all(name.startswith("sklearn.") or name == "numpy.dtype" for name in TRUSTED_TYPES)


def test_same_seed_gives_the_same_scores_in_another_process(tables: dict[str, Prepared]) -> None:
    data = tables["binary"]
    task = FoldTask(data.view, recipe(data, "RandomForestClassifier"), fold=1)
    here = run_fold(task, data).scores
    paths = list(TABLES["binary"])
    script = (
        "import json, sys, msgspec\n"
        "from training.tasks import FoldTask\n"
        "from training.worker import execute\n"
        "task, paths = json.load(sys.stdin)\n"
        "outcome = execute('training.trial:run_fold', msgspec.convert(task, FoldTask), 'key', paths)\n"
        "print(json.dumps(outcome.scores))"
    )
    given = json.dumps([msgspec.to_builtins(task), paths])
    ran = subprocess.run([sys.executable, "-c", script], input=given, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) == here


def test_fold_that_cannot_be_fitted_says_why(tables: dict[str, Prepared]) -> None:
    data = tables["binary"]
    outcome = run_fold(FoldTask(data.view, recipe(data, "KNeighborsClassifier", n_neighbors=500), 0), data)
    assert outcome.failed.startswith("ValueError: Expected n_neighbors <= n_samples_fit")


def test_metric_that_an_estimator_cannot_have_fails_its_fold(tables: dict[str, Prepared]) -> None:
    data = tables["multiclass"]
    task = msgspec.structs.replace(recipe(data, "LinearSVC"), metric="log_loss")
    assert run_fold(FoldTask(data.view, task, 0), data).failed == "log_loss is not defined for LinearSVC on fold 0"


RARE = pd.concat([load_iris(as_frame=True).frame.iloc[:100], load_iris(as_frame=True).frame.iloc[149:]])


@pytest.mark.parametrize("metric", ["balanced_accuracy", "f1_macro", "log_loss", "roc_auc_ovr"])
def test_a_class_of_a_single_row_is_no_reason_to_fail_on_any_fold(tmp_path: Path, metric: str) -> None:
    data = prepared(tmp_path, RARE)
    asked = msgspec.structs.replace(recipe(data, "GaussianNB"), metric=metric)
    for fold in range(SPLIT.folds):
        outcome = run_fold(FoldTask(data.view, asked, fold), data)
        assert not outcome.failed
        assert metric in outcome.scores


@pytest.mark.parametrize("name", catalog.default_names("classifier"))
def test_every_default_model_takes_a_class_of_a_single_row(tmp_path: Path, name: str) -> None:
    data = prepared(tmp_path, RARE)
    outcomes = [run_fold(FoldTask(data.view, recipe(data, name), fold), data) for fold in range(SPLIT.folds)]
    assert [outcome.failed for outcome in outcomes] == [""] * SPLIT.folds


def test_a_fold_that_lacks_one_of_two_classes_has_no_curve_and_leaves_it_to_the_others(tmp_path: Path) -> None:
    data = prepared(tmp_path, load_iris(as_frame=True).frame.iloc[:52])
    asked = msgspec.structs.replace(recipe(data, "GaussianNB"), metric="roc_auc")
    outcomes = [run_fold(FoldTask(data.view, asked, fold), data) for fold in range(SPLIT.folds)]
    assert [outcome.failed for outcome in outcomes] == [""] * SPLIT.folds
    assert sorted("roc_auc" in outcome.scores for outcome in outcomes) == [False, True, True]
    assert all("accuracy" in outcome.scores for outcome in outcomes)


def test_fit_that_eats_memory_fails_alone(tmp_path: Path) -> None:
    data = prepared(tmp_path, load_iris(as_frame=True).frame)
    hungry = recipe(data, "MLPClassifier", hidden_layer_sizes=[20_000, 20_000])
    source = [str(path) for path in tmp_path.glob("*.parquet")]
    outcome = execute("training.trial:run_fold", FoldTask(data.view, hungry, 0, memory_mb=300), "iris", source)
    assert getattr(outcome, "failed", "") == "MemoryError: the fit needs more memory than there is"
    modest = recipe(data, "GaussianNB")
    outcome = execute("training.trial:run_fold", FoldTask(data.view, modest, 0, memory_mb=300), "iris", source)
    assert getattr(outcome, "scores", {})["accuracy"] > 0.8


def test_weights_are_used(tmp_path: Path) -> None:
    frame = load_iris(as_frame=True).frame
    frame.insert(0, "importance", np.where(frame["target"] == 0, 0, 1))
    data = prepared(tmp_path, frame, weight="importance")
    assert [field.name for field in data.view.inputs] == list(frame.columns[1:-1])
    outcome = run_fold(FoldTask(data.view, recipe(data, "LogisticRegression"), 0), data)
    assert not outcome.failed
    assert outcome.scores["accuracy"] > 0.8


def test_only_functions_of_this_package_can_be_called() -> None:
    with pytest.raises(ValueError, match="not a task of this package"):
        execute("os:system", None, "", [])
