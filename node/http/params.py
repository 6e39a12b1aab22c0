"""Reading what a client sent by what its call declares: path, query and JSON body."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from node.http.errors import Refusal, invalid
from parvada.contract.kinds import Freshness, Kind, LogIndex, Parameter, kind_of, parameters_of
from parvada.contract.operation import JSON, PATH_PARAMETERS, Body, Operation
from parvada.nearest import known_are

Q = TypeVar("Q", bound=Freshness)

_AT = re.compile(r" - at `\$(.*)`$")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]")
_UNKNOWN_FIELD = re.compile(r"Object contains unknown field `(?P<field>.*?)`(?: - at `(?P<at>.*)`)?")
_FLOAT_FOR_INT = re.compile(r"Expected `(?:.* )?int(?: .*)?`, got `float` - at `\$.")
MAX_WRITTEN_AS_FLOATS = 100
FORM = "application/x-www-form-urlencoded"
MAX_SHOWN = 200
"""Characters of a value at fault that an answer repeats."""


def query_of(request: web.Request, form: type[Q]) -> Q:
    """The query as a struct. Raises Refusal (400) for a parameter that is unknown, given twice, or cannot be."""
    known = parameters_of(form)
    for name in request.query:
        if name not in known:
            # A typing error must not pass for a default.
            raise Refusal(
                400,
                "unknown_parameter",
                f"unknown query parameter {name!r}{known_are(name, sorted(known))}",
                {"field": name},
            )
    given = {name: _given(request, parameter) for name, parameter in known.items() if name in request.query}
    return form(**given)


def _given(request: web.Request, parameter: Parameter) -> Any:
    texts = request.query.getall(parameter.name)
    if parameter.repeatable:
        return tuple(_read(parameter.name, parameter.kind, text) for text in texts)
    if len(texts) > 1:
        message = f"the query parameter {parameter.name!r} is given more than once"
        raise Refusal(400, "invalid", message, {"field": parameter.name})
    return _read(parameter.name, parameter.kind, texts[0])


def _read(name: str, kind: Kind, text: str) -> Any:
    try:
        return kind.read(text)
    except (ValueError, OverflowError):
        raise invalid(name, text, kind.allowed) from None


def check_path(request: web.Request, operation: Operation) -> None:
    """Numbers are numbers, and what is new has a name. What is looked up may be spelt in any way: there is no such."""
    for name in operation.parameters:
        text, kind = request.match_info[name], PATH_PARAMETERS[name].kind
        if name == operation.makes:
            _read(f"{name} name", kind, text)
        elif kind.schema["type"] == "integer":
            _read(name, kind, text)


def version_of(request: web.Request) -> int:
    """Of a path that has been checked."""
    return int(request.match_info["version"])


def log_index(name: str, text: str) -> int:
    """Of a header."""
    found: int = _read(name, kind_of(LogIndex), text)
    return found


def name_of(kind: str, text: str) -> str:
    """A name for something new."""
    found: str = _read(f"{kind} name", PATH_PARAMETERS["dataset"].kind, text)
    return found


async def body_of(request: web.Request, declared: Body) -> Any:
    """The JSON body as its struct. Raises Refusal (400) naming field, value and what is allowed."""
    form = declared.form
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Refusal(415, "unsupported_encoding", "a JSON body is sent as it is, without Content-Encoding")
    if not _may_be_json(request.content_type):
        message = f"the Content-Type {request.content_type!r} cannot be read; send {JSON}"
        raise Refusal(415, "unsupported_format", message, {"field": "Content-Type", "value": request.content_type})
    raw = await request.read()
    if not raw and not declared.required:
        return form()
    try:
        return _decoded(raw, form)
    except msgspec.ValidationError as error:
        raise Refusal(400, "invalid", _explain(str(error), form), _details(str(error), raw)) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "malformed", f"the body is not JSON: {error}") from error


def _decoded(raw: bytes, form: Any) -> Any:
    """To JSON 5.0 is the whole number 5, and some clients write it so: where a whole number is asked for, both are."""
    try:
        return msgspec.json.decode(raw, type=form)
    except msgspec.ValidationError as error:
        if _FLOAT_FOR_INT.match(str(error)) is None:
            raise
        failure = error
    value = msgspec.json.decode(raw)
    for _ in range(MAX_WRITTEN_AS_FLOATS):
        if not _made_whole(value, _steps(str(failure))):
            break
        try:
            return msgspec.convert(value, form)
        except msgspec.ValidationError as error:
            failure = error
    raise failure


def _made_whole(value: Any, steps: Sequence[str | int]) -> bool:
    """Put a whole number where these steps lead to a float that is one."""
    *way, last = steps
    try:
        for step in way:
            value = value[step]
        found = value[last]
    except (LookupError, TypeError):  # an odd key, which the sentence does not spell out
        return False
    if isinstance(found, float) and found.is_integer():
        value[last] = int(found)
        return True
    return False


def _steps(message: str) -> list[str | int]:
    """The way to the value at fault."""
    at = _AT.search(message)
    return [key or int(index) for key, index in _STEP.findall(at[1] if at is not None else "")]


def _may_be_json(content_type: str) -> bool:
    """What plain HTTP clients send when told nothing is taken for JSON."""
    return content_type in (JSON, "application/octet-stream", FORM, "") or content_type.endswith("+json")


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
    unknown, steps = _UNKNOWN_FIELD.match(message), _steps(message)
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
