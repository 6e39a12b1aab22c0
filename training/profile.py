"""The values of a column as their type, and what describes them: the second pass over a file."""

import math
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from parvada import texts
from parvada.columns import dates_of
from parvada.schema import Column, ColumnType, Reading
from training.counts import ValueCounter
from training.distinct import MAX_CATEGORIES, Distinct
from training.errors import BadData
from training.forms import fit_number, plain_numbers
from training.guess import ColumnPlan

ARROW_TYPES: dict[str, pa.DataType] = {
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "category": pa.string(),
    "text": pa.string(),
    "datetime": pa.timestamp("us", "UTC"),
}


def as_texts(values: pa.Array) -> pa.Array:
    """Dictionaries unpacked, all kinds of strings as one."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_large_string(values.type) or pa.types.is_string_view(values.type) or pa.types.is_null(values.type):
        values = values.cast(pa.string())
    return values


def trimmed(values: pa.Array, reading: Reading) -> pa.Array:
    """Texts as the reading trims them."""
    return pc.utf8_trim_whitespace(values) if reading.trim else values


def clean(values: pa.Array, reading: Reading) -> pa.Array:
    """Texts as they are read, missing ones as nulls; anything else as it is."""
    if not pa.types.is_string(values.type):
        return values
    values = trimmed(values, reading)
    missing = pc.is_in(values, value_set=pa.array(sorted(texts.missing_of(reading)), pa.string()))
    return pc.if_else(missing, pa.scalar(None, pa.string()), values)


def typed(name: str, arrow: pa.DataType) -> ColumnType:
    """Of a column that came with this type. Raises BadData: it is of none of ours."""
    types = pa.types
    if types.is_string(arrow):
        return "category"
    if types.is_integer(arrow) or (types.is_decimal(arrow) and arrow.scale <= 0):
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
    """Cleaned values as `ARROW_TYPES[plan.type]`. NaN becomes null; infinities are left for the caller to refuse.

    Raises:
        pa.ArrowInvalid, ValueError: a value does not fit.
    """
    to = ARROW_TYPES[plan.type]
    if plan.type in ("integer", "number"):
        numbers = _numbers(values, plan)
        return _without_codes(numbers, plan)
    if pa.types.is_string(values.type):
        return _from_texts(values, plan).cast(to)
    if plan.type == "datetime" and pa.types.is_timestamp(values.type) and values.type.tz is None:
        values = values.cast(pa.timestamp("us"), safe=False)
    result = values.cast(to, safe=plan.type != "datetime")
    if plan.type == "datetime" and not _are_of_our_years(result):
        raise ValueError("a time is not in the years 1 to 9999")
    return result


def _numbers(values: pa.Array, plan: ColumnPlan) -> pa.Array:
    to = ARROW_TYPES[plan.type]
    if pa.types.is_string(values.type):
        values = plain_numbers(values, plan.reading)
    result = values.cast(to, safe=plan.type == "integer" or pa.types.is_string(values.type))
    return pc.if_else(pc.is_nan(result), pa.scalar(None, to), result) if plan.type == "number" else result


def _are_of_our_years(times: pa.Array) -> bool:
    ends = pc.min_max(times.cast(pa.int64()))
    low, high = ends["min"].as_py(), ends["max"].as_py()
    return low is None or (low >= _YEAR_1 and high <= _YEAR_9999)


def _from_texts(values: pa.Array, plan: ColumnPlan) -> pa.Array:
    if plan.type == "datetime":
        return _times(values, plan)
    if plan.type == "boolean":
        if pc.any(misfits(values, plan)).as_py():  # which does not fail by itself
            raise ValueError("not all values are true or false")
        return pc.equal(pc.utf8_lower(values), "true")
    return values


def _times(values: pa.Array, plan: ColumnPlan) -> pa.Array:
    """Each different text is read once."""
    coded = values.dictionary_encode()
    found = dates_of(coded.dictionary.to_pylist(), plan.reading.date)
    if found.isna().any():
        raise ValueError("not all values are dates")
    # Through numpy: in its own process pyarrow does not know what an index is (`training.ingest_worker`).
    return pa.array(found.tz_localize(None).as_unit("us").to_numpy()).take(coded.indices)


def _without_codes(values: pa.Array, plan: ColumnPlan) -> pa.Array:
    """Numbers that stand for a missing value are one."""
    if codes := texts.codes_of(plan.reading):
        told = pc.is_in(values.cast(pa.float64(), safe=False), value_set=pa.array(sorted(codes), pa.float64()))
        return pc.if_else(told, pa.scalar(None, values.type), values)
    return values


def misfits(values: pa.Array, plan: ColumnPlan) -> pa.Array:
    """Which of the cleaned texts are no values of the planned type."""
    if plan.type in ("integer", "number"):
        return pc.invert(fit_number(values, plan.reading, whole=plan.type == "integer"))
    if plan.type == "boolean":
        known = pc.is_in(pc.utf8_lower(values), value_set=pa.array(["true", "false"]))
        return pc.and_(pc.is_valid(values), pc.invert(known))
    found = dates_of(values.to_pylist(), plan.reading.date).isna()
    return pc.and_(pc.is_valid(values), pa.array(found.tolist(), pa.bool_()))


_YEAR_1, _YEAR_9999 = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Their first and last microsecond."""


class Description:
    """Key figures of one column over all batches (variance merged as by Chan, Golub and LeVeque)."""

    def __init__(self, plan: ColumnPlan, columns: int) -> None:
        self._plan = plan
        self._missing = 0
        self._distinct = Distinct(columns)
        self._counter = ValueCounter(plan.type, columns)
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
        self._counter.update(values)
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
            reading=self._plan.reading,
            distinct=len(self._distinct),
            categories=categories,
            **figures,
            **self._counter.figures(),
        )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
