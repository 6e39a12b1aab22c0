"""Columns that only say which row this is: of pandas' index, or a count of rows. They must not pass for features."""

import json
import re
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from training.distinct import Distinct

_NAMELESS = re.compile(r"__index_level_\d+__")
ENOUGH_ROWS = 10
"""From so many rows on it is remarkable that no value of a column comes twice."""


def of_pandas(metadata: Mapping[bytes, bytes] | None) -> tuple[str, ...]:
    """The columns that, by what pandas wrote into the file, are an index without a name. One that has a name was made
    by somebody, of dates for example, and is a column."""
    try:
        told = json.loads((metadata or {}).get(b"pandas", b"{}"))
        columns = told.get("index_columns", []) if isinstance(told, dict) else []
    except ValueError:
        return ()
    return tuple(name for name in columns if isinstance(name, str) and _NAMELESS.fullmatch(name))


class RowCount:
    """Whether a column counts the rows: 0, 1, 2 … or 1, 2, 3 … And, if `distinct`, whether its values are integers no
    two of which are equal, as those of an index whose rows were drawn or shuffled."""

    def __init__(self, *, distinct: bool) -> None:
        self._start: int | None = None
        self._rows = 0
        self._counts = True
        self._distinct = Distinct(1) if distinct else None

    def update(self, values: pa.Array) -> None:
        """`values`: integers, or texts of them."""
        if self._counts and len(values):
            self._counts = self._goes_on(values)
        if self._distinct is not None:
            self._distinct.update(values.drop_null())
        self._rows += len(values)

    def _goes_on(self, values: pa.Array) -> bool:
        first = values[0].as_py()
        if self._start is None:
            self._start = {"0": 0, "1": 1}.get(str(first), -1)
        if self._start < 0 or str(first) != str(self._start + self._rows):
            return False
        start = self._start + self._rows
        wanted = pa.array(range(start, start + len(values)), pa.int64())
        if pa.types.is_string(values.type):
            return bool(pc.all(pc.fill_null(pc.equal(values, wanted.cast(pa.string())), False)).as_py())
        return bool(pc.all(pc.fill_null(pc.equal(values.cast(pa.int64(), safe=False), wanted), False)).as_py())

    @property
    def counts(self) -> bool:
        return self._counts and self._rows > 1

    @property
    def all_differ(self) -> bool:
        """False where that is not known."""
        return self._distinct is not None and self._distinct.exact and len(self._distinct) == self._rows > 1
