"""Reading what a client sent: query parameters that are known, bodies that fit their struct, names that are names."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from node.http.errors import Refusal, invalid
from parvada.identifiers import is_name
from parvada.nearest import known_are

T = TypeVar("T")

_AT = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<field>.*?)`(?: - at `(?P<at>.*)`)?")
EVERYWHERE = frozenset({"min_index", "consistency"})
"""Parameters that the middleware reads, allowed on every call."""
REPEATABLE = frozenset({"drop", "types", "missing"})
MAX_SHOWN = 200
"""Characters of a value at fault that an answer repeats."""
MAX_DIGITS = 18
"""Of a number in a path, query or header: it fits 64 bits, and no text takes long to convert."""


def known_only(request: web.Request, names: Iterable[str] = ()) -> None:
    """Refuse unknown query parameters with the nearest known one: a typing error must not pass for a default."""
    allowed = {*names, *EVERYWHERE}
    for name in request.query:
        if name in allowed and name not in REPEATABLE and len(request.query.getall(name)) > 1:
            raise Refusal(400, "invalid", f"the query parameter {name!r} is given more than once", {"field": name})
        if name not in allowed:
            raise Refusal(
                400,
                "unknown_parameter",
                f"unknown query parameter {name!r}{known_are(name, sorted(allowed))}",
                {"field": name},
            )


def integer(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    number = whole(text)
    if number is None or not low <= number <= high:
        raise invalid(name, text, f"a whole number from {low} to {high}")
    return number


def switch(request: web.Request, name: str) -> bool:
    """False if it is not given."""
    text = request.query.get(name, "false")
    if text not in ("true", "false"):
        raise invalid(name, text, "true or false")
    return text == "true"


def whole(text: str) -> int | None:
    """The number that the text is, if it is one."""
    return int(text) if text.isdecimal() and len(text) <= MAX_DIGITS else None


def seconds(request: web.Request, name: str, default: str) -> float:
    """`30s`, `10m`, `2h`, or a plain number of seconds."""
    text = request.query.get(name, default)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|)", text)
    if found is None:
        raise invalid(name, text, "a time such as 30s, 10m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def moment(request: web.Request, name: str) -> float | None:
    """A time in ISO 8601, UTC where it says nothing else, as seconds since 1970; None if it is not given."""
    text = request.query.get(name)
    if text is None:
        return None
    try:
        # A plus sign of a time zone that was not escaped has become a space.
        found = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise invalid(name, text, "a time such as 2026-05-01T12:00:00Z") from None


def name_of(kind: str, text: str) -> str:
    """A name for something new."""
    if not is_name(text):
        allowed = "1 to 128 letters, digits, dots, hyphens and underscores, the first a letter or digit"
        raise invalid(f"{kind} name", text, allowed)
    return text


def version_of(request: web.Request, key: str = "version") -> int:
    number = whole(request.match_info[key])
    if number is None or number < 1:
        raise invalid("version", request.match_info[key], "a number from 1")
    return number


async def body(request: web.Request, form: type[T]) -> T:
    """The JSON body as a struct. Raises Refusal (400) naming field, value and what is allowed."""
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(415, "unsupported_encoding", "a JSON body is sent as it is, without Content-Encoding")
    raw = await request.read()
    try:
        return msgspec.json.decode(raw, type=form)
    except msgspec.ValidationError as error:
        raise Refusal(400, "invalid", _explain(str(error), form), _details(str(error), raw)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "malformed", f"the body is not JSON: {error}") from error


def _explain(message: str, form: object) -> str:
    """An unknown field gets the nearest known one of all that the form has."""
    found = _UNKNOWN_FIELD.match(message)
    if found is None:
        return message
    where = f" (at {found['at']})" if found["at"] else ""
    known = sorted(_fields(form))
    return f"unknown field {found['field']!r}{where}{known_are(found['field'], known)}"


def _details(message: str, raw: bytes) -> dict[str, Any]:
    """The field at fault and the value that it has."""
    unknown, at = _UNKNOWN_FIELD.match(message), _AT.search(message)
    steps = [key or int(index) for key, index in _STEP.findall(at[1] if at is not None else "")]
    if unknown is not None:
        steps.append(unknown["field"])
    found: dict[str, Any] = {"field": _dotted(steps)} if steps else {}
    try:
        value = msgspec.json.decode(raw)
        for step in steps:
            value = value[step]
    except (LookupError, TypeError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return found  # the field is missing, or what comes after it is no JSON
    if steps and isinstance(value, str | int | float | bool | None):
        found["value"] = value[:MAX_SHOWN] if isinstance(value, str) else value
    return found


def _dotted(steps: Iterable[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")


def _fields(form: object) -> set[str]:
    """Names of the struct's fields, those of structs within it too."""
    names: set[str] = set()
    if isinstance(form, type) and issubclass(form, msgspec.Struct):
        for field in msgspec.structs.fields(form):
            names.add(field.encode_name)
            names |= _fields(field.type)
    for part in getattr(form, "__args__", ()):
        names |= _fields(part)
    return names
