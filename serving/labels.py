"""What an estimator predicts, as the JSON values of the target's type: an integer label stays an integer."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from parvada.schema import ColumnType
from serving.engines import PREDICT
from serving.view import VersionView


def target_type(version: VersionView) -> ColumnType:
    """By the signature; a regression predicts numbers whatever its target's values were."""
    if version.task == "regression":
        return "number"
    return next((output.type for output in version.signature.outputs if output.name == PREDICT), "category")


def as_labels(values: Sequence[Any], version: VersionView) -> list[Any]:
    """Predictions or classes (Python values, possibly nested for several targets) in the target's type."""
    convert = _CONVERT[target_type(version)]
    return [[convert(v) for v in value] if isinstance(value, list) else convert(value) for value in values]


def as_key(label: Any) -> str:
    """A label as the key of a JSON object: written as JSON writes it."""
    return str(label).lower() if isinstance(label, bool) else str(label)


def _boolean(value: Any) -> bool:
    return value.lower() in ("true", "1", "1.0") if isinstance(value, str) else bool(value)


_CONVERT: Final[dict[ColumnType, Callable[[Any], Any]]] = {
    "integer": int,
    "number": float,
    "boolean": _boolean,
    "category": str,
    "text": str,
    "datetime": str,
}
