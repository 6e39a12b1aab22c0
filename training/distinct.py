"""The distinct values of a column, in bounded memory."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

MAX_CATEGORIES = 1_000
MAX_DISTINCT = 100_000
"""Distinct values are counted exactly up to here (fewer in very wide tables and of long texts, see `Distinct`)."""
_TOTAL, _BYTES, _LEAST = 4_000_000, 12 << 20, 64 << 10
"""Values and bytes of all columns together, and bytes that each may have at least."""


class Distinct:
    """The distinct values of one column, in the order in which they came, as long as they are few and small."""

    def __init__(self, columns: int, most: int = MAX_DISTINCT) -> None:
        """`columns`: how many share the memory; `most`: values to keep."""
        share = max(1, columns)
        self._most = max(min(most, 2 * MAX_CATEGORIES), min(most, _TOTAL // share))
        self._most_bytes = max(_LEAST, _BYTES // share)
        self._values: pa.Array | None = None
        self._full = False

    def __len__(self) -> int:
        return 0 if self._values is None else len(self._values)

    @property
    def exact(self) -> bool:
        """Whether these are all."""
        return not self._full

    def update(self, values: pa.Array) -> None:
        """`values` without nulls."""
        if self._full or not len(values):
            return
        found = pc.unique(values)
        if self._values is not None:
            found = pc.unique(pa.concat_arrays([self._values, found]))
        self._full = len(found) > self._most or found.nbytes > self._most_bytes
        self._values = found[: self._most]

    def values(self) -> list[Any]:
        return [] if self._values is None else self._values.to_pylist()
