"""Reading what a client sent: query parameters that are known, bodies that fit their struct, names that are names."""

import re
from collections.abc import Iterable
from typing import TypeVar

import msgspec
from aiohttp import web

from node.http.errors import Refusal, invalid
from training.errors import nearest

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<field>.*?)`(?: - at `(?P<at>.*)`)?")
EVERYWHERE = frozenset({"min_index", "consistency"})
"""Parameters that the middleware reads, allowed on every call."""


def known_only(request: web.Request, names: Iterable[str] = ()) -> None:
    """Refuse unknown query parameters with the nearest known one: a typing error must not pass for a default."""
    allowed = {*names, *EVERYWHERE}
    for name in request.query:
        if name not in allowed:
            raise Refusal(
                400,
                "unknown_parameter",
                f"unknown query parameter {name!r}{nearest(name, allowed)}; known are {', '.join(sorted(allowed))}",
                {"field": name},
            )


def integer(request: web.Request, name: str, default: int, low: int, high: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isdecimal() or not low <= int(text) <= high:
        raise invalid(name, text, f"a whole number from {low} to {high}")
    return int(text)


def seconds(request: web.Request, name: str, default: str) -> float:
    """`30s`, `10m`, `2h`, or a plain number of seconds."""
    text = request.query.get(name, default)
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(s|m|h|)", text)
    if found is None:
        raise invalid(name, text, "a time such as 30s, 10m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def name_of(kind: str, text: str) -> str:
    """A name for something new."""
    if _NAME.fullmatch(text) is None:
        allowed = "1 to 128 letters, digits, dots, hyphens and underscores, the first a letter or digit"
        raise invalid(f"{kind} name", text, allowed)
    return text


def version_of(request: web.Request, key: str = "version") -> int:
    text = request.match_info[key]
    if not text.isdecimal() or int(text) < 1:
        raise invalid("version", text, "a number from 1")
    return int(text)


async def body(request: web.Request, form: type[T]) -> T:
    """The JSON body as a struct. Raises Refusal (400) naming field, value and what is allowed."""
    raw = await request.read()
    try:
        return msgspec.json.decode(raw, type=form)
    except msgspec.ValidationError as error:
        raise Refusal(400, "invalid", _explain(str(error), form)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "malformed", f"the body is not JSON: {error}") from error


def _explain(message: str, form: object) -> str:
    """An unknown field gets the nearest known one of all that the form has."""
    found = _UNKNOWN_FIELD.match(message)
    if found is None:
        return message
    where = f" (at {found['at']})" if found["at"] else ""
    known = sorted(_fields(form))
    return f"unknown field {found['field']!r}{where}{nearest(found['field'], known)}; known are {', '.join(known)}"


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
