"""Names, directions and defaults of the metrics: a table that costs nothing to import."""

from collections.abc import Mapping

from training.errors import BadRequest, nearest

METRICS: Mapping[str, tuple[str, ...]] = {
    "binary": ("roc_auc", "accuracy", "balanced_accuracy", "f1", "log_loss", "average_precision"),
    "multiclass": ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "roc_auc_ovr"),
    "regression": ("r2", "rmse", "mae", "median_ae"),
}
AUTO: Mapping[str, str] = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}
_LESS_IS_BETTER = frozenset({"log_loss", "rmse", "mae", "median_ae"})


def greater_is_better(metric: str) -> bool:
    return metric not in _LESS_IS_BETTER


def better(metric: str, one: float, other: float) -> bool:
    """Whether score `one` beats `other`; equal scores do not."""
    return one > other if greater_is_better(metric) else one < other


def resolve_metric(metric: str, task: str) -> str:
    """`auto` made concrete. Raises BadRequest: the metric is not one of the task."""
    if metric == "auto":
        return AUTO[task]
    if metric not in METRICS[task]:
        allowed = METRICS[task]
        raise BadRequest(
            "unknown_metric",
            f"metric {metric!r} does not exist for {task}{nearest(metric, allowed)}; "
            f"allowed are auto, {', '.join(allowed)}",
            {"field": "metric", "value": metric, "allowed": ["auto", *allowed]},
        )
    return metric
