"""Parameter combinations of a candidate: none, a grid, or random draws. Pure: the seed decides."""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from parvada.nearest import did_you_mean
from parvada.schema import CandidateTemplate, SearchSpec
from training.errors import BadRequest

MAX_GRID = 10_000
_RANGE_KEYS = ("low", "high", "log", "int")

_DEPTHS = {"max_depth": [3, 5, 8, 12, None], "min_samples_leaf": [1, 5, 20]}
_FOREST = {"max_depth": [None, 8, 16], "min_samples_leaf": [1, 2, 5, 10], "max_features": ["sqrt", 0.5, 1.0]}
_RATE = {"low": 0.02, "high": 0.3, "log": True}
_KERNEL = {"C": {"low": 0.1, "high": 100.0, "log": True}, "gamma": {"low": 1e-4, "high": 1.0, "log": True}}
_NEIGHBORS = {"n_neighbors": [3, 5, 7, 11, 15, 25], "weights": ["uniform", "distance"]}
_STAGES = {"learning_rate": _RATE, "max_depth": [2, 3, 4, 5]}
_LEAVES = {"learning_rate": _RATE, "max_leaf_nodes": [7, 15, 31, 63]}

SPACES: Mapping[str, Mapping[str, Any]] = {
    "LogisticRegression": {"C": {"low": 0.01, "high": 100.0, "log": True}},
    "LinearSVC": {"C": {"low": 0.01, "high": 100.0, "log": True}},
    "Ridge": {"alpha": {"low": 1e-3, "high": 1e3, "log": True}},
    "Lasso": {"alpha": {"low": 1e-4, "high": 10.0, "log": True}},
    "SVC": _KERNEL,
    "SVR": _KERNEL,
    "KNeighborsClassifier": _NEIGHBORS,
    "KNeighborsRegressor": _NEIGHBORS,
    "DecisionTreeClassifier": _DEPTHS,
    "DecisionTreeRegressor": _DEPTHS,
    "RandomForestClassifier": _FOREST,
    "RandomForestRegressor": _FOREST,
    "ExtraTreesClassifier": _FOREST,
    "ExtraTreesRegressor": _FOREST,
    "GradientBoostingClassifier": _STAGES,
    "GradientBoostingRegressor": _STAGES,
    "HistGradientBoostingClassifier": _LEAVES,
    "HistGradientBoostingRegressor": _LEAVES,
}
"""Searched when the method asks for a search and the candidate names no parameters to search itself."""


def space_of(
    estimator: str, params: Mapping[str, Any], space: Mapping[str, Any], search: SearchSpec, field: str
) -> tuple[Mapping[str, Any], Literal["grid", "random"]]:
    """What is searched beside `params`, checked, and how; nothing when there is nothing to search.

    Raises:
        BadRequest: a malformed space, a range in a grid, a method that is not supported.
    """
    if search.method not in ("none", "grid", "random"):
        raise BadRequest(
            "unsupported_search",
            f"search.method {search.method!r} is not supported yet; supported are none, grid, random",
            {"field": "search.method", "value": search.method, "allowed": ["none", "grid", "random"]},
        )
    if not space and search.method != "none":
        space = {name: values for name, values in SPACES.get(estimator, {}).items() if name not in params}
        if search.method == "grid":
            space = {name: values for name, values in space.items() if isinstance(values, list)}
    for name, values in space.items():
        _check_values(name, values, f"{field}.search")
    if search.method == "random":
        return space, "random"
    if space:
        _check_grid(space, f"{field}.search")
    return space, "grid"


def combinations(template: CandidateTemplate) -> Iterator[dict[str, Any]]:
    """The parameters to try, without duplicates and always in the same order; only those that are fixed when there is
    nothing to search."""
    if not template.space:
        yield dict(template.params)
    elif template.method == "grid":
        names = sorted(template.space)
        for chosen in itertools.product(*(template.space[name] for name in names)):
            yield {**template.params, **dict(zip(names, chosen, strict=True))}
    else:
        yield from _draws(template)


def _check_values(name: str, values: Any, field: str) -> None:
    details = {"field": field, "value": {name: values}}
    if isinstance(values, list):
        if not values:
            raise BadRequest("invalid_search", f"{field}: {name!r} has no values", details)
        return
    if not isinstance(values, dict):
        message = f'{field}: {name!r} must be a list of values or {{"low", "high", "log", "int"}}, not {values!r}'
        raise BadRequest("invalid_search", message, details)
    for key in values:
        if key not in _RANGE_KEYS:
            hint = did_you_mean(key, _RANGE_KEYS)
            raise BadRequest("invalid_search", f"{field}: {name!r} has an unknown key {key!r}{hint}", details)
    low, high = values.get("low"), values.get("high")
    numbers = all(isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in (low, high))
    if not numbers or not low < high:  # type: ignore[operator]
        message = f"{field}: {name!r} needs numbers low < high, not low={low!r}, high={high!r}"
        raise BadRequest("invalid_search", message, details)
    if values.get("log") and low <= 0:  # type: ignore[operator]
        raise BadRequest("invalid_search", f"{field}: {name!r} is logarithmic: low must be above 0", details)


def _check_grid(space: Mapping[str, Any], field: str) -> None:
    for name, values in space.items():
        if isinstance(values, dict):
            message = f"{field}: {name!r} is a range: a grid needs a list of values (or use search.method random)"
            raise BadRequest("invalid_search", message, {"field": field, "value": {name: values}})
    size = math.prod(len(values) for values in space.values())
    if size > MAX_GRID:
        raise BadRequest("invalid_search", f"{field}: the grid has {size} combinations, at most {MAX_GRID}", {})


def _draws(template: CandidateTemplate) -> Iterator[dict[str, Any]]:
    rng = random.Random(template.seed)  # noqa: S311 - reproducible on purpose
    found: set[str] = set()
    for _ in range(template.trials * 10):
        drawn = {name: _draw(template.space[name], rng) for name in sorted(template.space)}
        if (text := repr(drawn)) not in found:
            found.add(text)
            yield {**template.params, **drawn}
        if len(found) == template.trials:
            return


def _draw(values: Sequence[Any] | Mapping[str, Any], rng: random.Random) -> Any:
    if not isinstance(values, Mapping):
        return values[rng.randrange(len(values))]
    low, high = values["low"], values["high"]
    log = values.get("log")
    drawn = math.exp(rng.uniform(math.log(low), math.log(high))) if log else rng.uniform(low, high)
    return min(high, max(low, round(drawn))) if values.get("int") else drawn
