"""Scores: each metric is what its definition says, and what is not defined on some rows is not there."""

import math
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.svm import LinearSVC

from training.evaluate import score
from training.metrics import METRICS


class Fixed:
    """A model that says what it was told to say, row by row. `proba` columns follow `classes`."""

    def __init__(self, predicted: Any, classes: Any = (), proba: Any = None, decision: Any = None) -> None:
        self._predicted = np.asarray(predicted)
        self.classes_ = np.asarray(classes)
        if proba is not None:
            self.predict_proba = lambda _: np.asarray(proba)
        if decision is not None:
            self.decision_function = lambda _: np.asarray(decision)

    def predict(self, _: Any) -> Any:
        return self._predicted


def array(*values: Any) -> Any:
    return np.asarray(values)


def of_class(predicted: Any, yes: Any) -> Fixed:
    """Of `no` and `yes`, with the probabilities of `yes`."""
    return Fixed(predicted, ["no", "yes"], [[1 - p, p] for p in yes])


def scored(task: str, model: Any, y: Any, weight: Any = None) -> dict[str, float]:
    return score(task, model, np.zeros((len(y), 1)), y, weight)


# ---------------------------------------------------------------- by hand
def test_regression_by_hand() -> None:
    found = scored("regression", Fixed([1.0, 2.0, 5.0, 4.0]), array(1.0, 3.0, 3.0, 5.0))
    # Errors 0, 1, 2, 1; the target's mean is 3 and its deviations -2, 0, 0, 2.
    assert found == pytest.approx({"r2": 1 - 6 / 8, "rmse": math.sqrt(6 / 4), "mae": 1.0, "median_ae": 1.0})


def test_binary_by_hand() -> None:
    y = array("yes", "yes", "no", "no", "yes")
    found = scored("binary", of_class(["yes", "no", "no", "yes", "yes"], [0.9, 0.4, 0.2, 0.6, 0.7]), y)
    assert found == pytest.approx(
        {
            "accuracy": 3 / 5,
            "balanced_accuracy": (2 / 3 + 1 / 2) / 2,
            "f1": 2 * 2 / (2 * 2 + 1 + 1),  # 2 found, 1 taken for it wrongly, 1 missed
            "log_loss": -sum(map(math.log, (0.9, 0.4, 0.8, 0.4, 0.7))) / 5,
            "roc_auc": 5 / 6,  # of six pairs only (0.4, 0.6) is the wrong way round
            "average_precision": (1 + 1 + 3 / 4) / 3,
        }
    )


def test_multiclass_by_hand() -> None:
    y = array("a", "b", "c", "c")
    proba = [[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.5, 0.1, 0.4], [0.1, 0.1, 0.8]]
    found = scored("multiclass", Fixed(["a", "b", "a", "c"], ["a", "b", "c"], proba), y)
    assert found == pytest.approx(
        {
            "accuracy": 3 / 4,
            "balanced_accuracy": (1 + 1 + 1 / 2) / 3,
            "f1_macro": (2 / 3 + 1 + 2 / 3) / 3,
            "log_loss": -sum(map(math.log, (0.7, 0.4, 0.4, 0.8))) / 4,
            "roc_auc_ovr": 1.0,  # each class's own rows have the most of it
        }
    )


def test_the_last_class_is_the_positive_one() -> None:
    y = array(0, 0, 1, 1)
    found = scored("binary", Fixed([0, 0, 0, 1], [0, 1], [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.4, 0.6]]), y)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["roc_auc"] == found["average_precision"] == 1.0


# ---------------------------------------------------------------- real models against scikit-learn
def table(classes: int, rows: int = 120) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(7)
    frame = rng.normal(size=(rows, 3))
    level = frame[:, 0] + rng.normal(scale=0.7, size=rows)
    y = level if classes == 0 else np.digitize(level, np.quantile(level, np.arange(1, classes) / classes))
    return frame, y, rng.integers(1, 4, rows).astype(float)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_real_regression(weighted: bool) -> None:
    frame, y, weight = table(0)
    w = weight if weighted else None
    model = LinearRegression().fit(frame, y)
    p = model.predict(frame)
    assert score("regression", model, frame, y, w) == {
        "r2": sk.r2_score(y, p, sample_weight=w),
        "rmse": math.sqrt(sk.mean_squared_error(y, p, sample_weight=w)),
        "mae": sk.mean_absolute_error(y, p, sample_weight=w),
        "median_ae": sk.median_absolute_error(y, p, sample_weight=w),
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_a_real_binary_model(weighted: bool) -> None:
    frame, y, weight = table(2)
    w = weight if weighted else None
    model = LogisticRegression().fit(frame, y)
    p, of_one = model.predict(frame), model.predict_proba(frame)[:, 1]
    assert score("binary", model, frame, y, w) == {
        "accuracy": sk.accuracy_score(y, p, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(y, p, sample_weight=w),
        "f1": sk.f1_score(y, p, sample_weight=w),
        "log_loss": sk.log_loss(y, of_one, sample_weight=w),
        "roc_auc": sk.roc_auc_score(y, of_one, sample_weight=w),
        "average_precision": sk.average_precision_score(y, of_one, sample_weight=w),
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_a_real_multiclass_model(weighted: bool) -> None:
    frame, y, weight = table(3)
    w = weight if weighted else None
    model = GaussianNB().fit(frame, y)
    p, proba = model.predict(frame), model.predict_proba(frame)
    assert score("multiclass", model, frame, y, w) == {
        "accuracy": sk.accuracy_score(y, p, sample_weight=w),
        "balanced_accuracy": sk.balanced_accuracy_score(y, p, sample_weight=w),
        "f1_macro": sk.f1_score(y, p, average="macro", sample_weight=w),
        "log_loss": sk.log_loss(y, proba, sample_weight=w),
        "roc_auc_ovr": sk.roc_auc_score(y, proba, multi_class="ovr", sample_weight=w),
    }


@pytest.mark.parametrize(
    ("task", "model"),
    [("regression", LinearRegression()), ("binary", LogisticRegression()), ("multiclass", GaussianNB())],
)
def test_a_model_that_can_do_all_has_every_metric_of_its_task(task: str, model: Any) -> None:
    frame, y, _ = table({"regression": 0, "binary": 2, "multiclass": 3}[task])
    assert set(score(task, model.fit(frame, y), frame, y, None)) == set(METRICS[task])


@pytest.mark.parametrize("task", ["regression", "binary", "multiclass"])
def test_a_row_of_weight_two_counts_as_two_rows(task: str) -> None:
    frame, y, weight = table({"regression": 0, "binary": 2, "multiclass": 3}[task])
    model = (LinearRegression() if task == "regression" else LogisticRegression()).fit(frame, y)
    often = np.repeat(np.arange(len(y)), weight.astype(int))
    once, again = score(task, model, frame, y, weight), score(task, model, frame[often], y[often], None)
    # A median between two rows is interpolated; with weights it is one of them.
    assert once.pop("median_ae", 0.0) == pytest.approx(again.pop("median_ae", 0.0), rel=0.05)
    assert once == pytest.approx(again)


# ---------------------------------------------------------------- models that cannot say all
def test_without_probabilities_a_decision_gives_the_curves() -> None:
    frame, y, _ = table(2)
    model = LinearSVC().fit(frame, y)
    found = score("binary", model, frame, y, None)
    assert set(found) == set(METRICS["binary"]) - {"log_loss"}
    assert found["roc_auc"] == sk.roc_auc_score(y, model.decision_function(frame))


def test_with_neither_there_are_no_curves() -> None:
    y = array("no", "yes", "yes")
    assert scored("binary", Fixed(y, ["no", "yes"]), y) == {"accuracy": 1.0, "balanced_accuracy": 1.0, "f1": 1.0}
    y = array("a", "b", "c")
    assert scored("multiclass", Fixed(y, y), y) == {"accuracy": 1.0, "balanced_accuracy": 1.0, "f1_macro": 1.0}


def test_a_column_of_predictions_is_as_good_as_a_row() -> None:
    """Some regressors, of several targets by nature, predict (rows, 1)."""
    y = array(1.0, 2.0, 4.0)
    assert scored("regression", Fixed([[1.0], [2.0], [4.0]]), y)["r2"] == 1.0


def test_what_predict_raises_is_raised() -> None:
    class Broken(Fixed):
        def predict(self, _: Any) -> Any:
            raise FloatingPointError("overflow")

    with pytest.raises(FloatingPointError, match="overflow"):
        scored("regression", Broken([]), array(1.0))


# ---------------------------------------------------------------- rows on which something is not defined
def test_one_row_has_no_r2() -> None:
    assert scored("regression", Fixed([2.0]), array(3.0)) == {"rmse": 1.0, "mae": 1.0, "median_ae": 1.0}


def test_a_constant_target_is_explained_wholly_or_not_at_all() -> None:
    y = array(3.0, 3.0, 3.0)
    assert scored("regression", Fixed(y), y)["r2"] == 1.0
    assert scored("regression", Fixed([3.0, 3.0, 4.0]), y)["r2"] == 0.0


def test_predictions_that_are_no_numbers_have_no_score() -> None:
    assert scored("regression", Fixed([1.0, math.nan]), array(1.0, 2.0)) == {}
    assert scored("regression", Fixed([1.0, math.inf]), array(1.0, 2.0)) == {}


def test_scores_that_overflow_are_left_out() -> None:
    found = scored("regression", Fixed([1.0, 1e200]), array(1.0, 2.0))
    assert set(found) == {"mae", "median_ae"}, "a square of it is no number any more"


@pytest.mark.parametrize(
    ("only", "defined"), [("yes", {"accuracy", "balanced_accuracy", "f1", "log_loss", "average_precision"}),
                          ("no", {"accuracy", "balanced_accuracy", "f1", "log_loss"})],
)  # fmt: skip
def test_a_fold_of_one_class_has_no_curves(only: str, defined: set[str]) -> None:
    y = array(only, only)
    found = scored("binary", of_class(["no", "yes"], [0.2, 0.6]), y)
    assert set(found) == defined
    assert found["accuracy"] == found["balanced_accuracy"] == 0.5


def test_a_class_that_the_fold_lacks_is_no_matter() -> None:
    proba = [[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.4, 0.2, 0.4]]
    found = scored("multiclass", Fixed(["a", "b", "c"], ["a", "b", "c"], proba), array("a", "b", "b"))
    assert found == pytest.approx(
        {
            "accuracy": 2 / 3,
            "balanced_accuracy": (1 + 1 / 2) / 2,
            "f1_macro": (1 + 2 / 3) / 2,
            "log_loss": -(math.log(0.7) + math.log(0.4) + math.log(0.2)) / 3,
            "roc_auc_ovr": (1 + 3 / 4) / 2,
        }
    ), "c is in no denominator, though it was predicted"


def test_a_class_that_the_model_never_saw_is_left_out_where_its_probability_is_needed() -> None:
    """A rare class may stand in one fold only, so that the model which is tested there was fitted without it."""
    found = scored(
        "multiclass", Fixed(["a", "b", "b"], ["a", "b"], [[0.9, 0.1], [0.2, 0.8], [0.4, 0.6]]), array(*"abc")
    )
    assert found == pytest.approx(
        {
            "accuracy": 2 / 3,
            "balanced_accuracy": 2 / 3,
            "f1_macro": (1 + 2 / 3 + 0) / 3,
            "log_loss": -(math.log(0.9) + math.log(0.8)) / 2,
            "roc_auc_ovr": 1.0,
        }
    )


def test_rows_of_one_class_have_no_curve_and_those_of_unknown_classes_no_loss() -> None:
    proba = [[0.9, 0.1], [0.2, 0.8]]
    found = scored("multiclass", Fixed(["a", "b"], ["a", "b"], proba), array("a", "a"))
    assert set(found) == {"accuracy", "balanced_accuracy", "f1_macro", "log_loss"}
    found = scored("multiclass", Fixed(["a", "b"], ["a", "b"], proba), array("c", "d"))
    assert set(found) == {"accuracy", "balanced_accuracy", "f1_macro"}


def test_a_model_of_one_class_knows_no_positive_one() -> None:
    """Fitted on rows of one class alone, as a split by groups may give them: nobody can say which class it is."""
    y = array("no", "yes", "no")
    found = scored("binary", Fixed(["no", "no", "no"], ["no"], [[1.0], [1.0], [1.0]]), y)
    assert found == pytest.approx({"accuracy": 2 / 3, "balanced_accuracy": 1 / 2})


def test_probabilities_that_are_none_have_no_loss_and_no_curve() -> None:
    y = array("no", "yes")
    found = scored("binary", of_class(["no", "yes"], [math.nan, math.nan]), y)
    assert found == {"accuracy": 1.0, "balanced_accuracy": 1.0, "f1": 1.0}
