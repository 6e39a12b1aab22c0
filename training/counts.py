"""How many rows each value of a column has, as long as the values are few enough to be classes."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from parvada.schema import ColumnType
from training.target import MAX_CLASSES

_BYTES_TOTAL, _BYTES_LEAST = 4 << 20, 16 << 10
"""Of the values of all columns together, and what each may have at least: a column of longer texts is not counted."""
_SHOWN = 100
"""Characters of a text that are kept of it."""


class ValueCounter:
    """Counts the rows of each value of one column of type `kind`, up to `MAX_CLASSES` values."""

    def __init__(self, kind: ColumnType, columns: int) -> None:
        """`columns`: how many share the memory."""
        self._most_bytes = max(_BYTES_LEAST, _BYTES_TOTAL // max(1, columns))
        self._values: pa.Array | None = None
        self._counts = np.zeros(0, np.int64)
        self._given_up = kind == "datetime"

    def update(self, values: pa.Array) -> None:
        """`values` without nulls."""
        if self._given_up or not len(values):
            return
        counted = pc.value_counts(values)
        found, rows = counted.field("values"), counted.field("counts").to_numpy()
        known = found if self._values is None else pc.unique(pa.concat_arrays([self._values, found]))
        if len(known) > MAX_CLASSES or known.nbytes > self._most_bytes or _fractions(found):
            self._values, self._given_up = None, True
            return
        counts = np.zeros(len(known), np.int64)
        counts[: len(self._counts)] = self._counts
        counts[pc.index_in(found, value_set=known).to_numpy()] += rows
        self._values, self._counts = known, counts

    def figures(self) -> dict[str, Any]:
        """The fields of `parvada.schema.Column` that tell how the rows are spread; empty where that is not known."""
        if self._values is None:
            return {}
        rarest = self._values[int(self._counts.argmin())].as_py()
        return {
            "smallest": int(self._counts.min()),
            "rarest": rarest[:_SHOWN] if isinstance(rarest, str) else rarest,
            "largest": int(self._counts.max()),
        }


def _fractions(values: pa.Array) -> bool:
    if not pa.types.is_floating(values.type):
        return False
    return not pc.all(pc.equal(values, pc.floor(values))).as_py()
