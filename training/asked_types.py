"""`types=column:type` at upload: what the uploader knows better than any guess."""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import get_args

import msgspec
import pyarrow as pa

from parvada.nearest import known_are
from parvada.schema import ColumnType, Reading
from training.errors import BadRequest

_ASKED = re.compile(r"(?P<column>.+):(?P<type>[A-Za-z]+)(\[(?P<date>[^\]]*)\])?", re.DOTALL)
_TYPES: tuple[ColumnType, ...] = get_args(ColumnType)


class AskedType(msgspec.Struct, frozen=True):
    type: ColumnType
    date: str = ""
    """The format of a datetime, as `datetime.strptime` takes it; empty: found out."""


def parse_types(asked: Iterable[str]) -> Mapping[str, AskedType]:
    """From `column:type` and `column:datetime[%d/%m/%Y]` to the type of each column named. Raises BadRequest."""
    types: dict[str, AskedType] = {}
    for text in asked:
        found = _ASKED.fullmatch(text)
        if found is None:
            raise _invalid(text, f"types: {text!r} is not column:type, as in when:datetime[%d/%m/%Y]")
        column, kind, date = found["column"], found["type"], found["date"] or ""
        if kind not in _TYPES:
            raise _invalid(text, f"types: {kind!r} is no type{known_are(kind, _TYPES)}")
        if found["date"] is not None and (kind != "datetime" or not _is_format(date)):
            raise _invalid(text, f"types: {text!r} has no format of dates in its brackets, as datetime[%d/%m/%Y] has")
        if column in types:
            raise _invalid(text, f"types: column {column!r} is given twice")
        types[column] = AskedType(msgspec.convert(kind, ColumnType), date)
    return types


def _invalid(text: str, message: str) -> BadRequest:
    return BadRequest("invalid_types", message, {"field": "types", "value": text, "allowed": list(_TYPES)})


def _is_format(date: str) -> bool:
    """Whether a date that is written so can be read again."""
    moment = datetime(2024, 12, 31, tzinfo=UTC)
    try:
        return datetime.strptime(moment.strftime(date), date).replace(tzinfo=UTC).date() == moment.date()
    except (ValueError, re.error):
        return False


def of_arrow(name: str, arrow: pa.DataType, asked: AskedType, reading: Reading) -> tuple[ColumnType, Reading]:
    """A column that came with the Arrow type `arrow`, as the type that is asked for. Raises BadRequest: it cannot."""
    types = pa.types
    whole = types.is_integer(arrow) or types.is_boolean(arrow) or (types.is_decimal(arrow) and arrow.scale <= 0)
    number = types.is_integer(arrow) or types.is_floating(arrow) or types.is_decimal(arrow)
    time = types.is_date(arrow) or types.is_timestamp(arrow)
    able: Mapping[str, bool] = {
        "integer": number,
        "number": number,
        "boolean": types.is_boolean(arrow),
        "category": whole,
        "datetime": time,
    }
    if not able.get(asked.type, False):
        raise _invalid(
            f"{name}:{asked.type}",
            f"types: column {name!r} has the type {arrow} in the file: it cannot be {asked.type}",
        )
    return asked.type, msgspec.structs.replace(reading, mixed=asked.type == "category")
