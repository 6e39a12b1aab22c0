"""The fitted preprocessing of a pipeline, applied group of columns by group of columns.

For one row, scikit-learn's `ColumnTransformer` spends most of its time on frames and their column names; its fitted
parts, given the same values as arrays, compute the same in a third of it. Used only where both agree on a probe.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from parvada.columns import to_frame
from parvada.schema import ColumnType, InputField

if TYPE_CHECKING:
    import pandas

log = logging.getLogger(__name__)

_PROBES: Final[dict[ColumnType, tuple[Any, Any]]] = {
    "integer": (1, 0),
    "number": (0.5, -1e3),
    "boolean": (True, False),
    "category": ("a", "never seen"),
    "text": ("a b c", "d"),
    "datetime": ("2000-02-03T04:05:06Z", "1969-12-31"),
}


class Head:
    """`transform` takes frames of `parvada.columns.layout`, shape (rows, columns), and gives what the estimator
    takes, shape (rows, features)."""

    def __init__(self, steps: Any, inputs: Sequence[InputField]) -> None:
        """`steps`: all of a fitted pipeline but its last step."""
        self._steps = steps
        self._groups: tuple[tuple[Any, Any], ...] | None = None
        self._shorten(inputs)

    @property
    def short(self) -> bool:
        """Whether the short way is taken."""
        return self._groups is not None

    def transform(self, frame: "pandas.DataFrame") -> Any:
        return self._steps.transform(frame) if self._groups is None else _by_groups(self._groups, frame)

    def _shorten(self, inputs: Sequence[InputField]) -> None:
        groups = _groups(self._steps)
        if groups is None:
            return
        import numpy

        probe = to_frame({field.name: _PROBES[field.type] for field in inputs}, inputs)
        try:
            whole = self._steps.transform(probe)
        except ValueError as error:
            log.info("head.not_probed reason=%s", error)
            return
        # Arrays have no column names: parts that remember some would warn of that at each call.
        parts = [part for transformer, _ in groups for part in _parts(transformer)]
        names = [(part, part.__dict__.pop("feature_names_in_", None)) for part in parts]
        try:
            short = _by_groups(groups, probe)
        except Exception as error:
            log.info("head.not_shortened reason=%s", type(error).__name__)
            short = None
        if short is not None and numpy.array_equal(short, whole, equal_nan=True):
            self._groups = groups
            return
        for part, known in names:
            if known is not None:
                part.feature_names_in_ = known


def _groups(steps: Any) -> tuple[tuple[Any, Any], ...] | None:
    """Each fitted transformer with the names of its columns, if the preprocessing is one `ColumnTransformer` of
    such; else None."""
    from sklearn.compose import ColumnTransformer

    if len(steps.steps) != 1 or not isinstance(steps.steps[0][1], ColumnTransformer):
        return None
    fitted = steps.steps[0][1].transformers_
    named = [(transformer, columns) for _, transformer, columns in fitted if transformer != "drop"]
    usable = all(
        hasattr(transformer, "transform") and isinstance(columns, str | list) for transformer, columns in named
    )
    return tuple(named) if named and usable else None


def _parts(transformer: Any) -> Iterator[Any]:
    yield transformer
    for _, step in getattr(transformer, "steps", ()):
        yield from _parts(step)


def _by_groups(groups: Sequence[tuple[Any, Any]], frame: "pandas.DataFrame") -> Any:
    import numpy

    made = [transformer.transform(frame[columns].to_numpy()) for transformer, columns in groups]
    return numpy.hstack([part.toarray() if hasattr(part, "toarray") else part for part in made])
