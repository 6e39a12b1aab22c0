"""From columns of values to the frame that a model's pipeline takes: one conversion, shared by training (from
Parquet) and serving (from requests), so that both see exactly the same features.

What the pipeline gets: numbers, integers and booleans as float64 with NaN for missing (true is 1.0); categories and
texts as objects of type str with "" for missing; a datetime as five numbers (see `DATE_PARTS`).
"""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from parvada.schema import InputField, Reading
from parvada.texts import MISSING, TEXT, codes_of, is_dated, named_month, number_of, string_of

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

DATE_PARTS = ("", "#month", "#day", "#weekday", "#hour")
"""A datetime column `when` becomes `when` (days since 1970, UTC), `when#month` and so on; weekday 0 is Monday."""

Kind = Literal["number", "category", "text"]
Array = Any
Values = Sequence[Any] | Array
"""A list of JSON values, or a numpy array."""


class ColumnError(ValueError):
    """A value that does not fit its column. `row` counts from 1; None when the whole column is at fault."""

    def __init__(self, column: str, row: int | None, value: object, reason: str) -> None:
        where = f"column {column!r}" if row is None else f"column {column!r}, row {row}"
        super().__init__(f"{where}: {reason}")
        self.column = column
        self.row = row
        self.value = value
        self.reason = reason


class FrameColumn(msgspec.Struct, frozen=True):
    """One column of the frame: its name, how it is encoded, and the input it comes from."""

    name: str
    kind: Kind
    source: str


def layout(fields: Sequence[InputField]) -> tuple[FrameColumn, ...]:
    """The columns of the frame that `to_frame` makes, in order. Names are unique."""
    taken = {field.name for field in fields}
    result: list[FrameColumn] = []
    for field in fields:
        if field.type != "datetime":
            kind: Kind = field.type if field.type in ("category", "text") else "number"
            result.append(FrameColumn(field.name, kind, field.name))
            continue
        for part in DATE_PARTS:
            name = field.name + part
            while part and name in taken:
                name += "#"
            taken.add(name)
            result.append(FrameColumn(name, "number", field.name))
    return tuple(result)


def to_frame(
    columns: Mapping[str, Values], fields: Sequence[InputField], *, text: bool = False, stored: bool = False
) -> "pd.DataFrame":
    """Convert columns of equal length to the frame described by `layout(fields)`, shape (rows, len(layout)).

    `text`: all values are texts of a CSV file. `stored`: the values come from a dataset, and have been read by the
    rule of their column when it was made; else each text is read by it now. Columns that `fields` does not name are
    ignored; a column of an optional field may be absent.

    Raises:
        ColumnError: a required column or value is missing, a value has the wrong type, or lengths differ.
    """
    import numpy as np
    import pandas as pd

    rows = _rows(columns, fields)
    arrays: list[Array] = []
    for field in fields:
        values = columns.get(field.name)
        if values is None:
            if field.required:
                raise ColumnError(field.name, None, None, "the column is missing")
            values = [None] * rows
        elif text:
            values = [_of_cell(field, row, value) for row, value in enumerate(values, 1)]
        elif not stored and field.reading is not None and field.type in ("category", "text", "boolean", "datetime"):
            values = [_of_json(field.reading, value) for value in values]
        elif not stored and field.reading is not None and codes_of(field.reading):
            values = _without_codes(field.reading, values)
        arrays.extend(_CONVERTERS[field.type](field, values))
    names = [column.name for column in layout(fields)]
    if arrays and all(array.dtype != object for array in arrays):
        return pd.DataFrame(np.column_stack(arrays), columns=names, copy=False)
    data = {n: pd.Series(a, dtype=a.dtype, copy=False) for n, a in zip(names, arrays, strict=True)}
    return pd.DataFrame(data, copy=False)


def _rows(columns: Mapping[str, Values], fields: Sequence[InputField]) -> int:
    rows: int | None = None
    for field in fields:
        values = columns.get(field.name)
        if values is None:
            continue
        if rows is not None and len(values) != rows:
            raise ColumnError(field.name, None, None, f"has {len(values)} values where other columns have {rows}")
        rows = len(values)
    return rows or 0


def _of_cell(field: InputField, row: int, value: str | None) -> Any:
    """The typed value of a CSV cell."""
    if value is None:
        return None
    reading = field.reading or TEXT
    if field.type not in ("integer", "number"):
        return string_of(value, reading)
    try:
        if field.reading is None:  # of a model made before there was a rule
            return None if (stripped := value.strip()) in MISSING else float(stripped)
        return number_of(value, reading)
    except ValueError:
        raise ColumnError(field.name, row, value, f"{value!r} is not a number") from None


def _of_json(reading: Reading, value: Any) -> Any:
    """A JSON value of a column of texts, read as a cell is. What is no text is for the converter to judge."""
    # Of a text file, who knows whether `true` was written True or TRUE: a boolean is refused there.
    if reading.mixed and isinstance(value, (int, float)) and (reading.typed or not isinstance(value, bool)):
        value = json_text(value)
    return string_of(value, reading) if isinstance(value, str) else value


def _without_codes(reading: Reading, values: Sequence[Any]) -> list[Any]:
    """The values of a column of numbers, those missing that stand for a missing one."""
    codes = codes_of(reading)
    return [None if type(value) in (int, float) and value in codes else value for value in values]


def json_text(value: bool | int | float) -> str:
    """As JSON writes it."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _numbers(field: InputField, values: Values) -> list[Array]:
    import numpy as np

    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        array = values.astype(np.float64)
    else:
        values = values.tolist() if isinstance(values, np.ndarray) else values
        if not set(map(type, values)) <= {int, float, type(None)}:
            row, value = next((i, v) for i, v in enumerate(values, 1) if type(v) not in (int, float, type(None)))
            raise ColumnError(field.name, row, value, f"{_shown(value)} is not a number")
        try:
            array = np.array(values, dtype=np.float64)
        except OverflowError:
            row, value = next((i, v) for i, v in enumerate(values, 1) if type(v) is int and abs(v) > 2**1000)
            raise ColumnError(field.name, row, value, "the number is too large") from None
    infinite = np.isinf(array)
    if infinite.any():
        row = int(infinite.argmax())
        raise ColumnError(field.name, row + 1, float(array[row]), "the number is not finite")
    _check_required(field, np.isnan(array))
    return [array]


def _booleans(field: InputField, values: Values) -> list[Array]:
    import numpy as np

    array = np.empty(len(values), dtype=np.float64)
    for i, value in enumerate(values):
        if value is True or value is False or isinstance(value, np.bool_):
            array[i] = 1.0 if value else 0.0
        elif _is_missing(value):
            array[i] = np.nan
        elif isinstance(value, str) and value.lower() in ("true", "false"):
            array[i] = 1.0 if value.lower() == "true" else 0.0
        else:
            raise ColumnError(field.name, i + 1, value, f"{_shown(value)} is neither true nor false")
    _check_required(field, np.isnan(array))
    return [array]


def _strings(field: InputField, values: Values) -> list[Array]:
    import numpy as np

    array = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        if isinstance(value, str):
            array[i] = str(value)
        elif _is_missing(value):
            array[i] = ""
        else:
            raise ColumnError(field.name, i + 1, value, f"{_shown(value)} is not a string")
    _check_required(field, array == "")
    return [array]


def _dates(field: InputField, values: Values) -> list[Array]:
    import numpy as np

    if not isinstance(values, np.ndarray):
        for row, value in enumerate(values, 1):
            if not _is_missing(value) and not isinstance(value, (str, dt.date)):
                raise ColumnError(field.name, row, value, f"{_shown(value)} is not a date{_of_form(field)}")
        values = [None if _is_missing(value) else value for value in values]
    index = dates_of(values, field.reading.date if field.reading is not None else "")
    missing = np.asarray(index.isna())
    if missing.any() and not isinstance(values, np.ndarray):
        wrong = next(((i, v) for i, v in enumerate(values, 1) if missing[i - 1] and v is not None), None)
        if wrong:
            raise ColumnError(field.name, wrong[0], wrong[1], f"{_shown(wrong[1])} is not a date{_of_form(field)}")
    _check_required(field, missing)
    days = np.where(missing, np.nan, index.as_unit("us").asi8 / 86_400e6)
    parts = (index.month, index.day, index.day_of_week, index.hour)
    return [days, *(np.asarray(part, dtype=np.float64) for part in parts)]


def dates_of(values: Values, date: str = "") -> "pd.DatetimeIndex":
    """Times in UTC, NaT for what is none. `date`: the column's format beside ISO 8601, which is always understood."""
    import numpy as np
    import pandas as pd

    if isinstance(values, np.ndarray):
        return _bounded(pd.DatetimeIndex(pd.to_datetime(values, format="ISO8601", utc=True, errors="coerce")))
    texts: list[Any] = list(values)
    if not date:
        return _bounded(_iso(texts))
    index = _parsed(texts, date)
    if "%B" in date and index.isna().any():
        named = _parsed([None if text is None else named_month(text) for text in texts], date)
        index = pd.DatetimeIndex(index.where(index.notna(), named))
    if index.isna().any():
        index = pd.DatetimeIndex(index.where(index.notna(), _iso(texts)))
    return _bounded(index)


def _iso(texts: list[Any]) -> "pd.DatetimeIndex":
    return _parsed([text if not isinstance(text, str) or is_dated(text) else None for text in texts], "ISO8601")


def _parsed(texts: list[Any], date: str) -> "pd.DatetimeIndex":
    import pandas as pd

    return pd.DatetimeIndex(pd.to_datetime(texts, format=date, utc=True, errors="coerce")).as_unit("us")


def _bounded(index: "pd.DatetimeIndex") -> "pd.DatetimeIndex":
    """Years that a date of Python may have."""
    import pandas as pd

    return pd.DatetimeIndex(index.where((index.year >= 1) & (index.year <= 9999)))


def _of_form(field: InputField) -> str:
    date = field.reading.date if field.reading is not None else ""
    return f" of the form {date} or of ISO 8601" if date else " of ISO 8601"


_CONVERTERS: dict[str, Callable[[InputField, Values], "list[np.ndarray]"]] = {
    "integer": _numbers,
    "number": _numbers,
    "boolean": _booleans,
    "category": _strings,
    "text": _strings,
    "datetime": _dates,
}


def _is_missing(value: object) -> bool:
    return value is None or value != value


def _check_required(field: InputField, missing: Array) -> None:
    if field.required and missing.any():
        raise ColumnError(field.name, int(missing.argmax()) + 1, None, "a value is required")


def _shown(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
