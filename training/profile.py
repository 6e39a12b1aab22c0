"""What the columns of a dataset are: infers a type for each (first pass) and describes its values (second pass)."""

import math
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from parvada.columns import MISSING
from parvada.schema import Column, ColumnType
from training.errors import BadData

MAX_CATEGORIES = 1_000
MAX_DISTINCT = 100_000
"""Distinct values are counted exactly up to here (fewer in very wide tables and of long texts, see `Distinct`)."""
_DISTINCT_TOTAL, _DISTINCT_BYTES, _DISTINCT_LEAST = 4_000_000, 12 << 20, 64 << 10
"""Values and bytes of all columns together, and bytes that each may have at least."""
_SAMPLE = 1_000
"""Distinct texts that tell prose from labels."""
_MISSING = pa.array(sorted(MISSING), pa.string())

_INTEGER = r"^[+-]?(0|[1-9]\d{0,17})$"
_NUMBER = r"^[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity)$"
_COMMA_NUMBER = r"^[+-]?(0|[1-9]\d*)(,\d+)?$"
_BOOLEAN = r"^(?i:true|false)$"
_DATE = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:?\d{2})?)?$"
# In the order of preference: a text column gets the first type that all its values fit. Digits with a leading zero
# (zip codes, account numbers) fit none of the numbers on purpose.
_PATTERNS = {"boolean": _BOOLEAN, "integer": _INTEGER, "number": _NUMBER, "comma": _COMMA_NUMBER, "datetime": _DATE}

ARROW_TYPES: dict[str, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "datetime": pa.timestamp("us", "UTC"),
}


class ColumnPlan(msgspec.Struct, frozen=True):
    """How a column is read: its type, and whether its numbers have a decimal comma."""

    name: str
    type: ColumnType
    comma: bool = False


class Distinct:
    """The distinct values of one column, in the order in which they came, as long as they are few and small."""

    def __init__(self, columns: int, most: int = MAX_DISTINCT) -> None:
        """`columns`: how many share the memory; `most`: values to keep."""
        share = max(1, columns)
        self._most = max(min(most, 2 * MAX_CATEGORIES), min(most, _DISTINCT_TOTAL // share))
        self._most_bytes = max(_DISTINCT_LEAST, _DISTINCT_BYTES // share)
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


def clean(values: pa.Array, *, textual: bool) -> pa.Array:
    """Texts without surrounding space (text formats only), missing values as nulls, dictionaries unpacked."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type) or pa.types.is_null(values.type):
        values = values.cast(pa.string())
    if pa.types.is_string(values.type):
        if textual:
            values = pc.utf8_trim_whitespace(values)
            return pc.if_else(pc.is_in(values, value_set=_MISSING), pa.scalar(None, pa.string()), values)
        return pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    return values


class TypeGuess:
    """Narrows the type of one column, batch by batch."""

    def __init__(self, name: str, columns: int, *, comma: bool) -> None:
        self.name = name
        self._fits = {kind for kind in _PATTERNS if comma or kind != "comma"}
        self._arrow: pa.DataType | None = None
        self._seen = 0
        self._sample = Distinct(columns, _SAMPLE)

    def update(self, values: pa.Array) -> None:
        if not pa.types.is_string(values.type):
            self._arrow = values.type
            return
        values = values.drop_null()
        self._seen += len(values)
        unique = pc.unique(values)
        for kind in tuple(self._fits):
            if not pc.all(pc.match_substring_regex(unique, _PATTERNS[kind])).as_py() and len(unique):
                self._fits.discard(kind)
        if "datetime" in self._fits and not _all_dates(unique):
            self._fits.discard("datetime")
        self._sample.update(unique)

    def plan(self, *, textual: bool) -> ColumnPlan:
        if self._arrow is not None:
            return ColumnPlan(self.name, _typed(self.name, self._arrow))
        if not self._seen:
            return ColumnPlan(self.name, "number")
        fits = self._fits if textual else set()
        for kind in _PATTERNS:
            if kind in fits:
                return ColumnPlan(self.name, "number" if kind == "comma" else kind, kind == "comma")  # type: ignore[arg-type]
        return ColumnPlan(self.name, "text" if self._is_prose() else "category")

    def _is_prose(self) -> bool:
        """Mostly different, and long: free text, not a label."""
        values = self._sample.values()
        count = len(values)
        length = sum(map(len, values)) / count
        words = sum(len(value.split()) for value in values) / count
        return (length >= 50 or words >= 4) and (count > 50 or count > self._seen / 2)


def _all_dates(texts: pa.Array) -> bool:
    import pandas as pd

    return bool(pd.to_datetime(texts.to_pylist(), format="ISO8601", utc=True, errors="coerce").notna().all())


def _typed(name: str, arrow: pa.DataType) -> ColumnType:
    types = pa.types
    if types.is_integer(arrow):
        return "integer"
    if types.is_floating(arrow) or types.is_decimal(arrow):
        return "number"
    if types.is_boolean(arrow):
        return "boolean"
    if types.is_date(arrow) or types.is_timestamp(arrow):
        return "datetime"
    raise BadData(
        "unsupported_type",
        f"column {name!r} has type {arrow}: numbers, booleans, strings, dates and timestamps are supported",
        {"column": name},
    )


def convert(values: pa.Array, plan: ColumnPlan) -> pa.Array:
    """Cleaned values as `ARROW_TYPES[plan.type]`. NaN becomes null; infinities are left for the caller to refuse."""
    to = ARROW_TYPES[plan.type]
    if plan.type == "datetime" and pa.types.is_string(values.type):
        import pandas as pd

        index = pd.DatetimeIndex(pd.to_datetime(values.to_pylist(), format="ISO8601", utc=True))
        # Through numpy: in its own process pyarrow does not know what an index is (`training.ingest_worker`).
        return pa.array(index.tz_localize(None).as_unit("us").to_numpy()).cast(to)
    if plan.type == "datetime" and pa.types.is_timestamp(values.type) and values.type.tz is None:
        return values.cast(pa.timestamp("us"), safe=False).cast(to)
    if plan.comma:
        values = pc.replace_substring(values, ",", ".")
    if plan.type in ("integer", "number") and pa.types.is_string(values.type):
        values = pc.replace_substring_regex(values, r"^\+", "")
    if plan.type == "boolean" and pa.types.is_string(values.type):
        values = pc.equal(pc.utf8_lower(values), "true")
    result = values.cast(to, safe=plan.type not in ("number", "datetime"))
    if plan.type == "number":
        result = pc.if_else(pc.is_nan(result), pa.scalar(None, to), result)
    return result


class Description:
    """Key figures of one column over all batches (variance merged as by Chan, Golub and LeVeque)."""

    def __init__(self, plan: ColumnPlan, columns: int) -> None:
        self._plan = plan
        self._missing = 0
        self._distinct = Distinct(columns)
        self._low: Any = None
        self._high: Any = None
        self._count = 0
        self._mean = 0.0
        self._square = 0.0

    @property
    def missing(self) -> int:
        return self._missing

    def update(self, values: pa.Array) -> None:
        self._missing += values.null_count
        values = values.drop_null()
        if not len(values):
            return
        self._distinct.update(values)
        if self._plan.type in ("integer", "number"):
            self._moments(values)
        if self._plan.type in ("integer", "number", "datetime"):
            extremes = pc.min_max(values).as_py()
            self._low = extremes["min"] if self._low is None else min(self._low, extremes["min"])
            self._high = extremes["max"] if self._high is None else max(self._high, extremes["max"])

    def _moments(self, values: pa.Array) -> None:
        array = values.to_numpy(zero_copy_only=False).astype("float64")
        count, mean = len(array), float(array.mean())
        delta, total = mean - self._mean, self._count + count
        self._square += float(((array - mean) ** 2).sum()) + delta * delta * self._count * count / total
        self._mean += delta * count / total
        self._count = total

    def column(self) -> Column:
        figures: dict[str, Any] = {}
        if self._count:
            figures = {"min": float(self._low), "max": float(self._high), "mean": _finite(self._mean)}
            figures["std"] = _finite(math.sqrt(self._square / self._count))
        elif self._low is not None:
            figures = {"min": self._low.isoformat(), "max": self._high.isoformat()}
        categories = None
        few = self._distinct.exact and len(self._distinct) <= MAX_CATEGORIES
        if self._plan.type in ("category", "boolean") and few:
            categories = sorted(self._distinct.values())
        return Column(
            name=self._plan.name,
            type=self._plan.type,
            nullable=self._missing > 0,
            missing=self._missing,
            distinct=len(self._distinct),
            categories=categories,
            **figures,
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
