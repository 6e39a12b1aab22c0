"""The estimators that can be trained: scikit-learn's own list, our defaults, checked parameters, fixed seeds."""

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from parvada.nearest import did_you_mean
from training.errors import BadRequest
from training.metrics import NEEDS

# Fast on small data, sound on large: one of each family, and a baseline that every model must beat.
DEFAULTS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "classifier": {
        "LogisticRegression": {"max_iter": 500},
        "LinearDiscriminantAnalysis": {},
        "GaussianNB": {},
        "KNeighborsClassifier": {},
        "LinearSVC": {"max_iter": 3000},
        "SVC": {"cache_size": 100},
        "DecisionTreeClassifier": {"max_depth": 8},
        "RandomForestClassifier": {"n_estimators": 100},
        "ExtraTreesClassifier": {"n_estimators": 100},
        "GradientBoostingClassifier": {"n_estimators": 80},
        "HistGradientBoostingClassifier": {"max_iter": 80},
        "AdaBoostClassifier": {"n_estimators": 50},
        "MLPClassifier": {"hidden_layer_sizes": [64]},
        "DummyClassifier": {},
    },
    "regressor": {
        "LinearRegression": {},
        "Ridge": {},
        "Lasso": {"alpha": 0.01},
        "BayesianRidge": {},
        "KNeighborsRegressor": {},
        "SVR": {"cache_size": 100},
        "DecisionTreeRegressor": {"max_depth": 8},
        "RandomForestRegressor": {"n_estimators": 100},
        "ExtraTreesRegressor": {"n_estimators": 100},
        "GradientBoostingRegressor": {"n_estimators": 80},
        "HistGradientBoostingRegressor": {"max_iter": 80},
        "AdaBoostRegressor": {"n_estimators": 50},
        "MLPRegressor": {"hidden_layer_sizes": [64]},
        "DummyRegressor": {},
    },
}

EARLY_STOPPING_ROWS = 1_000
"""Of fewer rows a tenth, set aside to stop by, says too little about the rest."""
EARLY_STOPPING_CLASS_ROWS = 50
"""Of a rarer class some fold may leave a single row, of which scikit-learn cannot set a share aside."""
LONG_ROWS = 10_000
"""From here on a network needs fewer passes over the rows, and `HistGradientBoosting…` stops early by itself."""

_NEEDS_ESTIMATOR = "it wraps other estimators, which have to be given"
_MANY_OUTPUTS = "it learns several targets at once"
EXCLUDED: Mapping[str, str] = {
    "ClassifierChain": _NEEDS_ESTIMATOR,
    "FixedThresholdClassifier": _NEEDS_ESTIMATOR,
    "MultiOutputClassifier": _NEEDS_ESTIMATOR,
    "MultiOutputRegressor": _NEEDS_ESTIMATOR,
    "OneVsOneClassifier": _NEEDS_ESTIMATOR,
    "OneVsRestClassifier": _NEEDS_ESTIMATOR,
    "OutputCodeClassifier": _NEEDS_ESTIMATOR,
    "RegressorChain": _NEEDS_ESTIMATOR,
    "SelfTrainingClassifier": _NEEDS_ESTIMATOR,
    "StackingClassifier": _NEEDS_ESTIMATOR,
    "StackingRegressor": _NEEDS_ESTIMATOR,
    "TransformedTargetRegressor": _NEEDS_ESTIMATOR,
    "TunedThresholdClassifierCV": _NEEDS_ESTIMATOR,
    "VotingClassifier": _NEEDS_ESTIMATOR,
    "VotingRegressor": _NEEDS_ESTIMATOR,
    "CategoricalNB": "it takes only category codes, not mixed columns",
    "IsotonicRegression": "it takes a single column",
    "CCA": _MANY_OUTPUTS,
    "PLSCanonical": _MANY_OUTPUTS,
    "MultiTaskElasticNet": _MANY_OUTPUTS,
    "MultiTaskElasticNetCV": _MANY_OUTPUTS,
    "MultiTaskLasso": _MANY_OUTPUTS,
    "MultiTaskLassoCV": _MANY_OUTPUTS,
}
NON_NEGATIVE = frozenset({"ComplementNB", "MultinomialNB"})
"""These refuse negative inputs: their numbers are scaled to 0..1."""

_FIXED = {"n_jobs": 1, "verbose": 0}
"""Ours, not the user's: a task has one CPU, and nobody reads its output."""


def kind_of(task: str) -> str:
    return "regressor" if task == "regression" else "classifier"


@cache
def estimators(kind: str) -> Mapping[str, type[Any]]:
    """Name to class, of all that can be trained on a table, in alphabetical order."""
    from sklearn.utils.discovery import all_estimators

    return {name: cls for name, cls in all_estimators(type_filter=kind) if name not in EXCLUDED}


def default_names(kind: str) -> tuple[str, ...]:
    return tuple(DEFAULTS[kind])


class Size(msgspec.Struct, frozen=True):
    """Of what is fitted: its rows, and those of its rarest class where they are known."""

    rows: int = 0
    smallest: int | None = None


def defaults(kind: str, name: str, size: Size) -> dict[str, Any]:
    """Our parameters for an estimator, on data of that size."""
    fixed = DEFAULTS[kind].get(name, {})
    rare = size.smallest is not None and size.smallest < EARLY_STOPPING_CLASS_ROWS
    if name.startswith("MLP"):
        early = size.rows >= EARLY_STOPPING_ROWS and not rare
        return {**fixed, "max_iter": 1_000 if size.rows < LONG_ROWS else 200, "early_stopping": early}
    if name.startswith("KNeighbors"):
        # With half of the rows held out and two folds, a quarter of them is fitted.
        return {**fixed, "n_neighbors": min(7, max(1, size.rows // 4))}
    if name == "DecisionTreeRegressor":
        # A lone tree whose leaves are single rows repeats their noise, and is worse than their mean.
        return {**fixed, "min_samples_leaf": min(10, max(1, size.rows // 30))}
    if name == "HistGradientBoostingClassifier" and rare and size.rows >= LONG_ROWS:
        return {**fixed, "early_stopping": False}
    return dict(fixed)


def check(kind: str, name: str, params: Mapping[str, Any], field: str, size: Size) -> dict[str, Any]:
    """The parameters of a candidate, with our defaults for it, checked by scikit-learn's own constraints.

    `field` names the place in the job, for messages; `size` is that of its data.

    Raises:
        BadRequest: unknown_estimator, unknown_parameter, invalid_parameter.
    """
    cls = _class(kind, name, field)
    known = set(_plain(cls).get_params(deep=False)) - {"random_state", *_FIXED}
    for param in params:
        if param not in known:
            ours = param in ("random_state", *_FIXED)
            why = "is set by the job itself (its seed, one CPU a fit)" if ours else "is not a parameter"
            raise BadRequest(
                "unknown_parameter",
                f"{field}: {param!r} {why} of {name}{'' if ours else did_you_mean(param, known)}",
                {"field": field, "value": param, "allowed": sorted(known)},
            )
    merged = {**defaults(kind, name, size), **params}
    try:
        build(kind, name, merged, seed=0)._validate_params()
    except (ValueError, TypeError) as error:
        message = str(error).splitlines()[0][:400]
        raise BadRequest("invalid_parameter", f"{field}: {message}", {"field": field, "value": dict(params)}) from error
    return merged


def can_score(kind: str, name: str, params: Mapping[str, Any], metric: str) -> bool:
    """Whether the estimator gives what the metric is computed from."""
    methods = NEEDS.get(metric, ())
    estimator = build(kind, name, params, seed=0)
    return not methods or any(hasattr(estimator, method) for method in methods)


def build(kind: str, name: str, params: Mapping[str, Any], seed: int) -> Any:
    """An unfitted estimator. JSON arrays become tuples, as scikit-learn expects of layer sizes and ranges."""
    estimator = _plain(estimators(kind)[name])
    known = estimator.get_params(deep=False)
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in params.items()}
    values.update({key: value for key, value in _FIXED.items() if key in known})
    if "random_state" in known:
        values["random_state"] = seed
    return estimator.set_params(**values)


def _plain(cls: type[Any]) -> Any:
    """With its own defaults. That an estimator will be gone in a later scikit-learn does not matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return cls()


def _class(kind: str, name: str, field: str) -> type[Any]:
    known = estimators(kind)
    if name in known:
        return known[name]
    if name in EXCLUDED:
        message = f"{field}: {name} cannot be trained here: {EXCLUDED[name]}"
    elif name in estimators("regressor" if kind == "classifier" else "classifier"):
        message = f"{field}: {name} does not fit the task: a {kind} is needed{did_you_mean(name, known)}"
    else:
        message = f"{field}: there is no {kind} {name!r}{did_you_mean(name, known)}"
    raise BadRequest("unknown_estimator", message, {"field": field, "value": name, "allowed": list(known)})
