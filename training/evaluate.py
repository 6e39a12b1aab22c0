"""Scores of a fitted pipeline on rows it has not seen. Metrics that are not defined there are left out.

A rare class may lack in the rows to score, or in those that were fitted: metrics of several classes are taken over the
classes that both have.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn.metrics as sk

Array = Any


def score(task: str, model: Any, frame: Any, y: Array, weight: Array | None) -> dict[str, float]:
    """All metrics of the task (see `training.metrics`) that can be computed.

    `frame`: (rows, features); `y`: (rows,); `weight`: (rows,) or None. Raises what `predict` raises.
    """
    predicted = model.predict(frame)
    if task == "regression":
        table = _regression(y, np.ravel(predicted), weight)
    else:
        table = _classification(task, model, frame, y, predicted, weight)
    result: dict[str, float] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, compute in table.items():
            try:
                value = float(compute())
            except ValueError:
                # E.g. the area under a curve of a fold in which a class does not occur.
                continue
            if math.isfinite(value):
                result[name] = value
    return result


def _regression(y: Array, predicted: Array, weight: Array | None) -> dict[str, Callable[[], float]]:
    return {
        "r2": lambda: sk.r2_score(y, predicted, sample_weight=weight),
        "rmse": lambda: sk.root_mean_squared_error(y, predicted, sample_weight=weight),
        "mae": lambda: sk.mean_absolute_error(y, predicted, sample_weight=weight),
        "median_ae": lambda: sk.median_absolute_error(y, predicted, sample_weight=weight),
    }


def _classification(
    task: str, model: Any, frame: Any, y: Array, predicted: Array, weight: Array | None
) -> dict[str, Callable[[], float]]:
    classes = list(model.classes_)
    proba = model.predict_proba(frame) if hasattr(model, "predict_proba") else None
    table: dict[str, Callable[[], float]] = {
        "accuracy": lambda: sk.accuracy_score(y, predicted, sample_weight=weight),
        "balanced_accuracy": lambda: sk.balanced_accuracy_score(y, predicted, sample_weight=weight),
    }
    if proba is not None:
        table["log_loss"] = lambda: _log_loss(y, proba, classes, weight)
    if task == "binary":
        if len(classes) < 2:
            return table  # fitted on rows of one class: nobody can say whether it is the positive one
        positive = classes[-1]
        table["f1"] = lambda: sk.f1_score(y, predicted, pos_label=positive, sample_weight=weight)
        scores = proba[:, -1] if proba is not None else None
        if scores is None and hasattr(model, "decision_function"):
            scores = model.decision_function(frame)
        if scores is not None:
            truth = y == positive
            table["roc_auc"] = lambda: sk.roc_auc_score(truth, scores, sample_weight=weight)
            if truth.any():  # else scikit-learn gives 0 for a curve that there is not
                table["average_precision"] = lambda: sk.average_precision_score(truth, scores, sample_weight=weight)
        return table
    present = np.unique(y)
    table["f1_macro"] = lambda: sk.f1_score(y, predicted, labels=present, average="macro", sample_weight=weight)
    if proba is not None:
        table["roc_auc_ovr"] = lambda: _roc_auc_ovr(y, proba, classes, weight)
    return table


def _log_loss(y: Array, proba: Array, classes: list[Any], weight: Array | None) -> float:
    """Of the rows of classes that the model knows: it can say nothing of the others."""
    known = np.isin(y, classes)
    weight = weight[known] if weight is not None else None
    loss: float = sk.log_loss(y[known], proba[known], labels=classes, sample_weight=weight)
    return loss


def _roc_auc_ovr(y: Array, proba: Array, classes: list[Any], weight: Array | None) -> float:
    """The mean over the classes that the model knows and `y` has, each against all other rows."""
    areas = [
        sk.roc_auc_score(y == label, proba[:, index], sample_weight=weight)
        for index, label in enumerate(classes)
        if (y == label).any()
    ]
    if not areas:
        raise ValueError("no class of the model occurs")
    return float(np.mean(areas))
