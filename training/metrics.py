"""Names, directions and defaults of the metrics: a table that costs nothing to import."""

from collections.abc import Mapping

import msgspec

from parvada.nearest import did_you_mean
from training.errors import BadRequest

METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": ("roc_auc", "accuracy", "balanced_accuracy", "f1", "log_loss", "average_precision"),
    "multiclass": ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "roc_auc_ovr"),
    "regression": ("r2", "rmse", "mae", "median_ae"),
}
NEEDS: Mapping[str, tuple[str, ...]] = {
    "log_loss": ("predict_proba",),
    "roc_auc_ovr": ("predict_proba",),
    "roc_auc": ("predict_proba", "decision_function"),
    "average_precision": ("predict_proba", "decision_function"),
}
"""Methods of which an estimator must have one, where `predict` is not enough."""
AUTO: Mapping[str, str] = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}
BALANCED = "balanced_accuracy"
IMBALANCE = 3.0
"""How many times the rows of the rarest class the largest of several may have before accuracy says little of the rare
ones: then the balanced one is chosen, in which all classes count alike. The area under a curve needs no such care."""
_LESS_IS_BETTER = frozenset({"log_loss", "rmse", "mae", "median_ae"})


class Spread(msgspec.Struct, frozen=True):
    """Rows of the rarest and of the largest class."""

    smallest: int
    largest: int


def greater_is_better(metric: str) -> bool:
    return metric not in _LESS_IS_BETTER


def better(metric: str, one: float, other: float) -> bool:
    """Whether score `one` beats `other`; equal scores do not."""
    return one > other if greater_is_better(metric) else one < other


def resolve_metric(metric: str, task: str, classes: Spread | None = None) -> tuple[str, str]:
    """`auto` made concrete, and the reason where there was a choice. `classes` is how the rows are spread over them,
    where that is known. Raises BadRequest: the metric is not one of the task."""
    if metric == "auto":
        return _chosen(task, classes)
    if metric not in METRICS[task]:
        allowed = METRICS[task]
        raise BadRequest(
            "unknown_metric",
            f"metric {metric!r} does not exist for {task}{did_you_mean(metric, allowed)}; "
            f"allowed are auto, {', '.join(allowed)}",
            {"field": "metric", "value": metric, "allowed": ["auto", *allowed]},
        )
    return metric, ""


def _chosen(task: str, classes: Spread | None) -> tuple[str, str]:
    metric = AUTO[task]
    if classes is None or task == "regression":
        return metric, ""
    largest, smallest = classes.largest, classes.smallest
    if task == "binary":
        balance = f"the largest class has {largest} rows, the other {smallest}"
        return metric, f"metric {metric}, which does not depend on the balance of the classes: {balance}"
    if largest > IMBALANCE * smallest:
        balance = f"the largest class has {largest} rows, more than {IMBALANCE:g} times the {smallest} of the rarest"
        return BALANCED, f"metric {BALANCED} and not {metric}: {balance}"
    balance = f"the largest class has {largest} rows, at most {IMBALANCE:g} times the {smallest} of the rarest"
    return metric, f"metric {metric}: {balance}"
