"""Submitting a job: everything wrong is found with its field and the nearest name; what is right is pinned."""

from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_iris

from consensus.state import DatasetVersion, Json
from parvada.schema import DatasetDetail, JobSpec, UnitDetail
from tests.unit.training.data import dataset, facts, mixed_table
from training.catalog import DEFAULTS, EXCLUDED, estimators
from training.errors import BadData, BadRequest
from training.ingest import IngestOptions, ingest
from training.spec import resolve_job


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> DatasetVersion:
    return dataset(tmp_path_factory.mktemp("iris"), load_iris(as_frame=True).frame)[0]


def spec(**fields: object) -> JobSpec:
    return msgspec.convert({"datasets": ["iris"], **fields}, JobSpec)


ODD = "Prix\u00a0HT,Code postal,Code\u00a0postal,y\n" + "1,2,3,p\n4,5,6,q\n" * 20


def test_a_jobs_columns_are_meant_by_what_they_look_like(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").write_text(ODD)
    odd = facts(ingest(str(tmp_path / "odd.csv"), IngestOptions(str(tmp_path))))[0]
    asked = {"name": "table", "target": "Prix  HT", "drop": ["Code\u00a0postal", " y"]}
    unit = resolve_job(spec(datasets=[asked], publish={"model": "m"}), [odd]).units[0]
    assert unit.target == "Prix\u00a0HT"
    assert msgspec.json.decode(unit.detail, type=UnitDetail).drop == ["Code\u00a0postal", "y"]
    with pytest.raises(BadRequest, match=r"datasets\[0\].drop: .* 'Code postal', 'Code\\xa0postal'") as refused:
        resolve_job(spec(datasets=[asked | {"drop": ["Code  postal"]}]), [odd])
    assert refused.value.code == "ambiguous_column"


def test_default_job_has_a_good_dozen_with_fixed_seeds(iris: DatasetVersion) -> None:
    job = resolve_job(spec(seed=4), [iris])
    assert [c.estimator for c in job.candidates] == list(DEFAULTS["classifier"])
    assert len(job.candidates) >= 12
    assert [c.id for c in job.candidates][:2] == ["0.0", "0.1"]
    assert job == resolve_job(spec(seed=4), [iris])
    assert {c.seed for c in job.candidates}.isdisjoint(c.seed for c in resolve_job(spec(seed=5), [iris]).candidates)
    assert (job.units[0].metric, job.units[0].target, job.candidates[0].folds_total) == ("accuracy", "target", 5)


def test_all_means_every_estimator_that_can_take_a_table(iris: DatasetVersion) -> None:
    from sklearn.utils.discovery import all_estimators

    named = {candidate.estimator for candidate in resolve_job(spec(models="all"), [iris]).candidates}
    assert named == {name for name, _ in all_estimators(type_filter="classifier")} - set(EXCLUDED)
    assert set(EXCLUDED) <= {name for name, _ in all_estimators()}
    assert set(DEFAULTS["regressor"]) <= set(estimators("regressor"))


@pytest.mark.parametrize(
    ("fields", "code", "says"),
    [
        ({"models": ["RandomForrestClassifier"]}, "unknown_estimator", "did you mean 'RandomForestClassifier'?"),
        ({"models": ["Ridge"]}, "unknown_estimator", "does not fit the task"),
        ({"models": ["VotingClassifier"]}, "unknown_estimator", "wraps other estimators"),
        ({"models": []}, "no_models", "a list of estimators is needed"),
        ({"models": [{"estimator": "SVC", "params": {"c": 1}}]}, "unknown_parameter", "did you mean 'C'?"),
        ({"models": [{"estimator": "SVC", "params": {"C": -1}}]}, "invalid_parameter", "'C' parameter of SVC must be"),
        ({"models": [{"estimator": "SVC", "params": {"C": "x"}}]}, "invalid_parameter", "models[0]"),
        (
            {"models": [{"estimator": "RandomForestClassifier", "params": {"n_jobs": 4}}]},
            "unknown_parameter",
            "is set by the job itself",
        ),
        (
            {"models": [{"estimator": "SVC", "preprocess": {"scael": "none"}}]},
            "unknown_parameter",
            "did you mean 'scale'?",
        ),
        ({"models": [{"estimator": "SVC", "search": {"C": {"low": 5, "high": 1}}}]}, "invalid_search", "low < high"),
        ({"metric": "acuracy"}, "unknown_metric", "did you mean 'accuracy'?"),
        ({"metric": "r2"}, "unknown_metric", "does not exist for multiclass"),
        (
            {"metric": "log_loss", "models": ["LinearSVC", "RidgeClassifier"]},
            "undefined_metric",
            "log_loss needs predict_proba, which LinearSVC, RidgeClassifier cannot give",
        ),
        ({"metric": "log_loss", "models": ["SVC"]}, "undefined_metric", "which SVC cannot give"),
        ({"cv": {"folds": 1}}, "invalid_value", "cv.folds is 1: it must be 2 to 20"),
        ({"cv": {"holdout": 0.9}}, "invalid_value", "cv.holdout"),
        ({"seed": -1}, "invalid_value", "seed is -1"),
        ({"search": {"method": "tpe"}}, "unsupported_search", "not supported yet"),
        ({"publish": {"model": "my model"}}, "invalid_name", "'my model' is not a name"),
        ({"datasets": [{"name": "iris", "target": "targte"}]}, "unknown_column", "did you mean 'target'?"),
        ({"datasets": [{"name": "iris", "drop": ["target"]}]}, "invalid_drop", "cannot be dropped"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_submitted(
    iris: DatasetVersion, fields: dict[str, object], code: str, says: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        resolve_job(spec(**fields), [iris])
    assert caught.value.code == code
    assert says in str(caught.value)


def detail_of(version: DatasetVersion, **fields: object) -> UnitDetail:
    return msgspec.json.decode(resolve_job(spec(**fields), [version]).units[0].detail, type=UnitDetail)


@pytest.mark.parametrize(
    ("rows", "says"),
    [(1, "class 2 of 'target' has 1 row, fewer than the 5 folds"),
     (4, "class 2 of 'target' has 4 rows, 3 of them not held out, fewer than the 5 folds"),
     (5, "class 2 of 'target' has 5 rows, 4 of them not held out, fewer than the 5 folds"),
     (6, None)],
)  # fmt: skip
def test_a_rare_class_leaves_the_folds_as_they_are_and_is_told(tmp_path: Path, rows: int, says: str | None) -> None:
    frame = load_iris(as_frame=True).frame
    version, _ = dataset(tmp_path, frame[(frame["target"] != 2) | (frame.index >= 150 - rows)])
    detail = detail_of(version, metric="accuracy")
    assert detail.folds == 5
    expected = [f"{says}: each is scored by the classes that it has"] if says else []
    assert detail.notes == expected


def test_one_of_two_classes_that_could_not_be_both_fitted_and_tested_is_refused(tmp_path: Path) -> None:
    frame = load_iris(as_frame=True).frame
    version, _ = dataset(tmp_path / "one", frame.iloc[:51])
    with pytest.raises(BadData, match="class 1 of 'target' has 1 row: of two classes each needs 2 rows"):
        resolve_job(spec(), [version])
    version, _ = dataset(tmp_path / "two", frame.iloc[:52])
    assert detail_of(version).folds == 5
    with pytest.raises(BadData, match="has 2 rows: of two classes each needs 2 rows that are not held out"):
        resolve_job(spec(cv={"holdout": 0.5}), [version])


def shares(*rows: int) -> pd.DataFrame:
    """Classes `c0`, `c1`, … of so many rows, beside a number."""
    classes = [f"c{number}" for number, count in enumerate(rows) for _ in range(count)]
    return pd.DataFrame({"x": np.random.default_rng(1).normal(size=len(classes)), "y": classes})


@pytest.mark.parametrize(
    ("rows", "metric", "why"),
    [
        (
            (96, 2, 2),
            "balanced_accuracy",
            "and not accuracy: the largest class has 96 rows, more than 3 times the 2 of",
        ),
        ((91, 30, 30), "balanced_accuracy", "more than 3 times the 30 of the rarest"),
        ((90, 30, 30), "accuracy", "the largest class has 90 rows, at most 3 times the 30 of the rarest"),
        ((95, 5), "roc_auc", "which does not depend on the balance of the classes: the largest class has 95 rows"),
    ],
)
def test_auto_chooses_the_metric_by_the_balance_of_the_classes_and_says_why(
    tmp_path: Path, rows: tuple[int, ...], metric: str, why: str
) -> None:
    version, _ = dataset(tmp_path, shares(*rows))
    assert resolve_job(spec(), [version]).units[0].metric == metric
    (said,) = [note for note in detail_of(version).notes if note.startswith("metric ")]
    assert said.startswith(f"metric {metric}")
    assert why in said
    assert not [note for note in detail_of(version, metric="accuracy").notes if note.startswith("metric ")]


def test_a_data_set_whose_classes_were_not_counted_has_the_usual_metric(tmp_path: Path) -> None:
    """As those that were made before they were."""
    version, _ = dataset(tmp_path, shares(96, 2, 2))
    detail = msgspec.json.decode(version.detail, type=DatasetDetail)
    columns = [msgspec.structs.replace(c, smallest=None, rarest=None, largest=None) for c in detail.columns]
    old = msgspec.structs.replace(detail, columns=columns)
    version = msgspec.structs.replace(version, detail=Json(msgspec.json.encode(old)))
    assert resolve_job(spec(), [version]).units[0].metric == "accuracy"
    assert [note.split(",")[0] for note in detail_of(version).notes] == ["the rarest class of 'y' has 2 rows"]


def test_a_metric_is_taken_where_one_candidate_can_have_it(iris: DatasetVersion) -> None:
    """The others fail, each with its reason in its row."""
    for models in (["LinearSVC", "GaussianNB"], [{"estimator": "SVC", "params": {"probability": True}}], "default"):
        assert resolve_job(spec(metric="log_loss", models=models), [iris]).units[0].metric == "log_loss"


def test_few_rows_and_few_groups_reduce_the_folds(tmp_path: Path) -> None:
    frame = load_iris(as_frame=True).frame
    version, _ = dataset(tmp_path / "rows", frame.iloc[46:54])
    assert detail_of(version, metric="accuracy").notes[0] == "folds reduced from 5 to 3: the dataset has 8 rows"
    frame.insert(0, "plant", np.arange(150) % 4)
    version, _ = dataset(tmp_path / "groups", frame, group="plant")
    assert detail_of(version, metric="accuracy").notes == ["folds reduced from 5 to 3: there are 4 groups"]


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    version, _ = dataset(tmp_path, load_iris(as_frame=True).frame.iloc[48:52])
    with pytest.raises(BadData, match="4 rows, too few"):
        resolve_job(spec(cv={"folds": 5, "holdout": 0.5}), [version])


def test_other_target_makes_another_task(tmp_path: Path) -> None:
    version, _ = dataset(tmp_path, mixed_table("binary"))
    job = resolve_job(spec(datasets=[{"name": "table", "target": "height", "drop": ["y"]}]), [version])
    assert (job.units[0].task, job.units[0].metric) == ("regression", "r2")
    assert job.candidates[0].estimator == "LinearRegression"


def test_two_datasets_cannot_become_one_model(iris: DatasetVersion) -> None:
    with pytest.raises(BadRequest, match="several datasets would be published as 'm'"):
        resolve_job(spec(datasets=["iris", "iris"], publish={"model": "m"}), [iris, iris])


def test_search_draws_the_same_trials_for_the_same_seed(iris: DatasetVersion) -> None:
    fields = {
        "models": [
            {"estimator": "SVC", "search": {"C": {"low": 0.1, "high": 10, "log": True}, "kernel": ["rbf", "poly"]}}
        ],
        "search": {"method": "random", "trials": 7},
    }
    one, other = resolve_job(spec(**fields), [iris]), resolve_job(spec(**fields), [iris])
    assert len({c.params for c in one.candidates}) == 7
    assert one == other
    grid = {"models": [{"estimator": "SVC", "search": {"C": [1, 2, 3], "kernel": ["rbf", "poly"]}}]}
    assert len(resolve_job(spec(**grid), [iris]).candidates) == 6


def test_candidates_whose_parameters_would_fill_every_node_are_refused(iris: DatasetVersion) -> None:
    """They are short in the job, as one list for a thousand candidates, and each candidate has its own."""
    bulky = {"hidden_layer_sizes": [10] * 10_000}
    model = {"estimator": "MLPClassifier", "params": bulky, "search": {"alpha": [n / 1000 for n in range(1, 1001)]}}
    with pytest.raises(BadRequest, match="at most 16,777,216") as refused:
        resolve_job(spec(models=[model], search={"method": "grid"}), [iris], tallied=True)
    assert refused.value.code == "too_large"


def test_a_job_tells_the_notes_about_the_columns_it_uses(tmp_path: Path) -> None:
    rows = [
        f"{row},NA,u{row:02d},{100 + row * 13 % 997}\n" if row % 3 else f"{row},x,u{row:02d},5\n" for row in range(30)
    ]
    (tmp_path / "odd.csv").write_text("n,c,id,price\n" + "".join(rows))
    odd = facts(ingest(str(tmp_path / "odd.csv"), IngestOptions(str(tmp_path), missing=None)))[0]

    def told(**ref: object) -> str:
        unit = resolve_job(spec(datasets=[{"name": "table", **ref}]), [odd]).units[0]
        return "\n".join(msgspec.json.decode(unit.detail, type=UnitDetail).notes)

    assert "'NA' taken as missing, 20 times (first in line 3)" in told()
    assert "'n' only counts the rows" in told()
    assert "'id' has another value in each row" in told()
    assert "'id'" not in told(drop=["id"])
    assert "'n' only counts the rows" not in told(target="n")
