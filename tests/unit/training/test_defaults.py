"""The default models on data that everybody knows: each is worth its place."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from threadpoolctl import threadpool_limits

from consensus.messages import NewCandidate
from consensus.state import Unit
from parvada.schema import CandidateSpec, JobSpec, UnitDetail
from tests.unit.training.data import dataset
from training import catalog
from training.choice import BASELINES
from training.frames import Prepared, prepare
from training.metrics import better
from training.preprocess import PreprocessOptions
from training.recipes import data_view
from training.spec import resolve_job
from training.tasks import FoldTask, Recipe, SplitPlan
from training.trial import run_fold

SPLIT = SplitPlan(folds=5, repeats=1, holdout=0.0, seed=0)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As in a worker."""
    with threadpool_limits(limits=1):
        yield


def score(unit: Unit, candidate: NewCandidate, data: Prepared, fold: int = 0, split: SplitPlan = SPLIT) -> float:
    """By the unit's metric, on a fifth of the rows."""
    params = msgspec.json.decode(candidate.params)
    recipe = Recipe(candidate.estimator, params, PreprocessOptions(), candidate.seed, unit.metric, split)
    outcome = run_fold(FoldTask(data.view, recipe, fold), data)
    assert outcome.failed == ""
    return outcome.scores[unit.metric]


@pytest.mark.parametrize("load", [load_iris, load_wine, load_breast_cancer, load_diabetes])
def test_every_default_model_beats_the_baseline(tmp_path: Path, load: Any) -> None:
    version, paths = dataset(tmp_path, load(as_frame=True).frame)
    job = resolve_job(JobSpec(datasets=["table"]), [version])
    (unit,) = job.units
    data = prepare(version.digest, paths, data_view(unit, version))
    scores = {candidate.estimator: score(unit, candidate, data) for candidate in job.candidates}
    (baseline,) = BASELINES & set(scores)
    beaten = {name: better(unit.metric, value, scores[baseline]) for name, value in scores.items() if name != baseline}
    assert len(beaten) >= 12
    assert all(beaten.values()), scores


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (catalog.Size(150, 50), (1_000, False)),
        (catalog.Size(999), (1_000, False)),
        (catalog.Size(1_000), (1_000, True)),
        (catalog.Size(1_000, 50), (1_000, True)),
        (catalog.Size(1_000, 49), (1_000, False)),
        (catalog.Size(10_000, 400), (200, True)),
    ],
)
def test_a_network_stops_early_only_where_the_rows_and_classes_suffice(
    size: catalog.Size, expected: tuple[int, bool]
) -> None:
    params = catalog.check("classifier", "MLPClassifier", {}, "models[0]", size)
    assert (params["max_iter"], params["early_stopping"]) == expected
    asked = catalog.check("classifier", "MLPClassifier", {"early_stopping": True, "max_iter": 7}, "models[0]", size)
    assert (asked["max_iter"], asked["early_stopping"]) == (7, True)


@pytest.mark.parametrize("rows", [8, 15])
def test_the_default_regressors_take_a_dozen_rows(tmp_path: Path, rows: int) -> None:
    frame = pd.DataFrame({"size": np.arange(rows) * 3 % 11 / 2, "price": 199 + 13 * np.arange(rows)})
    version, paths = dataset(tmp_path, frame)
    job = resolve_job(JobSpec(datasets=["table"]), [version])
    (unit,) = job.units
    data = prepare(version.digest, paths, data_view(unit, version))
    detail = msgspec.json.decode(unit.detail, type=UnitDetail)
    split = SplitPlan(detail.folds, 1, detail.holdout, 0)
    for candidate in job.candidates:
        score(unit, candidate, data, split=split)


@pytest.mark.parametrize("name", ["MLPClassifier", "HistGradientBoostingClassifier"])
def test_no_model_of_many_rows_fails_for_a_rare_class(tmp_path: Path, name: str) -> None:
    """Those that stop early by a share of the rows refuse a class of which only one row is left to share."""
    rows = 2 * catalog.LONG_ROWS
    frame = pd.DataFrame({"x": np.arange(rows) % 97, "y": np.where(np.arange(rows) < rows - 2, "usual", "rare")})
    version, paths = dataset(tmp_path, frame)
    models: list[str | CandidateSpec] = [CandidateSpec(estimator=name, params={"max_iter": 2})]
    job = resolve_job(JobSpec(datasets=["table"], models=models, metric="accuracy"), [version])
    (unit,), (candidate,) = job.units, job.candidates
    data = prepare(version.digest, paths, data_view(unit, version))
    for fold in range(SPLIT.folds):
        score(unit, candidate, data, fold)
