"""What the text of a parameter may be: how it is read, how a refusal names what is allowed, how JSON Schema says it."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import Enum, EnumMeta
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec

MAX_DIGITS: Final = 18
"""Of a number in a path, query or header: it fits 64 bits, and no text takes long to convert."""


class Kind(msgspec.Struct, frozen=True, eq=False):
    """`read` raises ValueError; `allowed` ends the sentence "it must be …"."""

    read: Callable[[str], Any]
    allowed: str
    schema: Mapping[str, Any]
    shown: Callable[[Any], Any] = lambda value: value
    """A value, as the document shows it."""


def whole(text: str) -> int | None:
    """The number that the text is, if it is one."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else None


def integer(low: int, high: int, allowed: str = "") -> Kind:
    def read(text: str) -> int:
        number = whole(text)
        if number is None or not low <= number <= high:
            raise ValueError(text)
        return number

    schema = {"type": "integer", "minimum": low, "maximum": high}
    return Kind(read, allowed or f"a whole number from {low} to {high}", schema)


def one_of(values: Mapping[str, Any]) -> Kind:
    """The texts that there are, and what each means."""
    *first, last = values
    allowed = f"{', '.join(first)} or {last}" if first else last

    def read(text: str) -> Any:
        if text not in values:
            raise ValueError(text)
        return values[text]

    return Kind(read, allowed, {"type": "string", "enum": list(values)})


TEXT: Final = Kind(str, "a text", {"type": "string"})
SWITCH: Final = Kind(one_of({"true": True, "false": False}).read, "true or false", {"type": "boolean"})


def said(**schema: Any) -> Kind:
    """Any text: what it may be is only said here. It is judged where it is used, by whoever can say more of it."""
    return Kind(str, "a text", {"type": "string", **schema})


def matching(pattern: str, allowed: str) -> Kind:
    """A text that a regular expression matches as a whole, in the common language of Python and JSON Schema."""
    compiled = re.compile(pattern, re.ASCII)

    def read(text: str) -> str:
        if compiled.fullmatch(text) is None:
            raise ValueError(text)
        return text

    return Kind(read, allowed, {"type": "string", "pattern": pattern})


_UNITS: Final = {"": 1, "s": 1, "m": 60}


def duration(pattern: str, allowed: str) -> Kind:
    """`30s`, `10m`, or a plain number of seconds, as seconds; `pattern` says which."""
    text = matching(pattern, allowed)

    def read(given: str) -> float:
        number, unit = re.fullmatch(r"(\d+)([a-z]?)", text.read(given), re.ASCII).groups()  # type: ignore[union-attr]
        return float(number) * _UNITS[unit]

    return Kind(read, allowed, text.schema, lambda seconds: f"{seconds:g}s")


def _moment(text: str) -> float:
    # A plus sign of a time zone that was not escaped has become a space.
    found = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
    zoned = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return (zoned - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds()


MOMENT: Final = Kind(
    _moment,
    "a time such as 2026-05-01T12:00:00Z",
    {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]},
)
"""ISO 8601, UTC where it says nothing else, as seconds since 1970."""

Moment = Annotated[float, MOMENT]
LogIndex = Annotated[int, integer(0, 10**MAX_DIGITS - 1, "a log index, as in the id of an event")]


def kind_of(form: Any) -> Kind:
    """Of the type of a parameter; None in a union only says that it may be left out. Raises TypeError."""
    if get_origin(form) is Annotated:
        inner, *marks = get_args(form)
        return next((mark for mark in marks if isinstance(mark, Kind)), None) or _bounded(inner, marks)
    if get_origin(form) in (Union, UnionType):
        (inner,) = (part for part in get_args(form) if part is not NoneType)
        return kind_of(inner)
    if get_origin(form) is Literal:
        return one_of({value: value for value in get_args(form)})
    if isinstance(form, EnumMeta):
        members: list[Enum] = list(form)
        return one_of({str(member.value): member for member in members})
    if form is str:
        return TEXT
    if form is bool:
        return SWITCH
    raise TypeError(f"no kind of parameter is {form!r}")


def _bounded(inner: Any, marks: list[Any]) -> Kind:
    meta = next((mark for mark in marks if isinstance(mark, msgspec.Meta)), msgspec.Meta())
    if inner is int and isinstance(meta.ge, int) and isinstance(meta.le, int):
        return integer(meta.ge, meta.le)
    return kind_of(inner)


# ---------------------------------------------------------------- queries
class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """How fresh a read must be; every call takes these two."""

    min_index: Annotated[int, msgspec.Meta(ge=0, le=10**MAX_DIGITS - 1)] = 0
    """Wait until this node has applied the log so far: with the `x-parvada-index` of a write, its effect is seen."""
    consistency: Literal["local", "linearizable"] = "local"
    """`linearizable`: pass through the log first, so that all that was acknowledged before is seen."""


class Parameter(msgspec.Struct, frozen=True):
    """One query parameter. `default` is `msgspec.NODEFAULT` where it must be given."""

    name: str
    kind: Kind
    repeatable: bool
    default: Any


@cache
def parameters_of(query: type[Freshness]) -> Mapping[str, Parameter]:
    """What a query takes, by name: each field is a parameter, a tuple one that may be repeated."""
    found: dict[str, Parameter] = {}
    for field in msgspec.structs.fields(query):
        form, repeatable = _element(field.type)
        found[field.encode_name] = Parameter(field.encode_name, kind_of(form), repeatable, field.default)
    return found


def _element(form: Any) -> tuple[Any, bool]:
    if get_origin(form) in (Union, UnionType):
        parts = [part for part in get_args(form) if part is not NoneType]
        if len(parts) == 1:
            return _element(parts[0])
    if get_origin(form) is tuple:
        return get_args(form)[0], True
    return form, False
