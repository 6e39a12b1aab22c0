"""The OpenAPI 3.1 document of a table of operations."""

from collections.abc import Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final, Literal

import msgspec

from parvada import schema
from parvada.contract.docstrings import of_fields, structs_of
from parvada.contract.kinds import Freshness, parameters_of
from parvada.contract.operation import (
    JSON,
    PATH_PARAMETERS,
    TAGS,
    Answer,
    AnyOf,
    Body,
    Operation,
)

Document = dict[str, Any]

_REFERENCE: Final = "#/components/schemas/{name}"
_REFUSED: Final[Mapping[int, str]] = {
    400: "Malformed or invalid: the field, the value and what is allowed.",
    401: "No token, or one that is not known.",
    403: "The token's role is too low.",
    404: "There is no such thing, and often the nearest name that there is.",
    408: "Nothing of the body has come for too long.",
    409: "It contradicts the present state.",
    413: "Too large.",
    415: "A format that is not known.",
    422: "Data that can be read and cannot be used: the row and the column.",
    429: "Overloaded: try again, or another node.",
    503: "No quorum, or not ready: try again, or another node.",
}
_ABOUT: Final = (
    "Every node answers every call alike; a write reaches the leader by itself. Any status from 400 on has the body "
    "of `Problem`. A write answers once it is committed, with its log index in `x-parvada-index`; a read with "
    "`?min_index=` that index sees it, on any node."
)
_HEADERS: Final[Mapping[str, Mapping[str, Any]]] = {
    "x-parvada-node": {"description": "Id of the node that answers.", "schema": {"type": "string"}},
    "x-parvada-index": {"description": "Log index of the write.", "schema": {"type": "integer", "minimum": 0}},
    "x-parvada-stale": {
        "description": "Only without a quorum: for how many seconds the node has had none.",
        "schema": {"type": "number", "minimum": 0},
    },
    "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {"description": "How to say who one is.", "schema": {"type": "string"}},
}
_IDEMPOTENCY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key gives the same result, and its effect happens once, also across a leader change.",
    "schema": {"type": "string", "maxLength": 200},
}


def document(operations: Iterable[Operation], version: str, auth: Literal["writes", "all"]) -> Document:
    """Of a node with that setting of `PARVADA_AUTH`."""
    table = tuple(operations)
    forms = [*_forms(table), schema.Problem]
    (references, components) = msgspec.json.schema_components(forms, ref_template=_REFERENCE)
    names = {repr(form): reference for form, reference in zip(forms, references, strict=True)}
    _describe(components, structs_of(*forms))
    paths: dict[str, Any] = {}
    for operation in table:
        entry = _operation(operation, names, auth)
        paths.setdefault(operation.path, {})[operation.method.lower()] = entry
    used = {operation.tag for operation in table}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Parvada",
            "version": version,
            "summary": "A peer-to-peer cluster for supervised learning.",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This node."}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in used],
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "responses": {str(status): _refusal(status, names) for status in _REFUSED},
            "parameters": dict(_shared()),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API token; `parvada token show` on a node prints the admin's.",
                }
            },
        },
    }


def _forms(table: Iterable[Operation]) -> list[Any]:
    """Every type of the wire, once."""
    found: dict[str, Any] = {}
    for operation in table:
        bodies = (operation.body,) if operation.body is not None else ()
        for part in (*operation.answers, *bodies):
            forms = part.form.forms if isinstance(part.form, AnyOf) else (part.form,)
            found |= {repr(form): form for form in forms if form is not bytes}
    return list(found.values())


def _describe(components: dict[str, Any], structs: Iterable[type[msgspec.Struct]]) -> None:
    """What stands beside the fields in the source."""
    for form in structs:
        component = components.get(form.__name__)
        for name, text in (of_fields(form) if component is not None else {}).items():
            shown = component["properties"].get(name)  # type: ignore[index]  # it is there
            if shown is not None:
                shown.setdefault("description", text)


# ---------------------------------------------------------------- one operation
def _operation(operation: Operation, names: Mapping[str, Any], auth: Literal["writes", "all"]) -> Document:
    entry: Document = {
        "operationId": operation.id,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": _text(operation, auth),
        "parameters": [*_parameters(operation)],
        "responses": {
            **{str(answer.status): _answer(operation, answer, names) for answer in operation.answers},
            **{
                str(status): {"$ref": f"#/components/responses/{status}"}
                for status in operation.statuses(auth)
                if not any(answer.status == status for answer in operation.answers)
            },
        },
        "security": _security(operation, auth),
    }
    if operation.guarded(auth):
        entry["x-role"] = operation.role
    if operation.body is not None:
        entry["requestBody"] = _body(operation.body, names)
    return entry


def _text(operation: Operation, auth: Literal["writes", "all"]) -> str:
    role = operation.role if operation.guarded(auth) else None
    return " ".join(filter(None, (operation.text, f"Needs the role `{role}`." if role is not None else "")))


def _security(operation: Operation, auth: Literal["writes", "all"]) -> list[Mapping[str, list[str]]]:
    if operation.guarded(auth):
        return [{"token": []}]
    return [{}, {"token": []}] if operation.role is not None else []


def _parameters(operation: Operation) -> Iterator[Document]:
    common = parameters_of(Freshness)
    yield from ({"$ref": f"#/components/parameters/{name}"} for name in operation.parameters)
    if operation.query is not None:
        yield from (shown for shown in _query(operation.query) if shown["name"] not in common)
        yield from ({"$ref": f"#/components/parameters/{name}"} for name in common)
    if operation.writes:
        yield {"$ref": "#/components/parameters/Idempotency-Key"}


def _shared() -> Iterator[tuple[str, Document]]:
    """Parameters that mean the same everywhere."""
    for name, known in PATH_PARAMETERS.items():
        shown = {"description": known.text, "schema": known.kind.schema, "example": known.example}
        yield name, {"name": name, "in": "path", "required": True, **shown}
    yield from ((shown["name"], shown) for shown in _query(Freshness))
    yield "Idempotency-Key", dict(_IDEMPOTENCY)


def _query(query: type[Freshness]) -> Iterator[Document]:
    texts = of_fields(query)
    for name, parameter in parameters_of(query).items():
        form = dict(parameter.kind.schema)
        if parameter.default not in (msgspec.NODEFAULT, None, ()):
            form["default"] = parameter.kind.shown(parameter.default)
        if parameter.repeatable:
            form = {"type": "array", "items": form}
        yield {
            "name": name,
            "in": "query",
            "required": parameter.default is msgspec.NODEFAULT,
            "description": texts.get(name, ""),
            "schema": form,
        }


def _body(body: Body, names: Mapping[str, Any]) -> Document:
    content: Document = {}
    for media in body.media:
        content[media] = {"schema": _form(body.form, media, names)}
        examples = {example.summary: {"value": example.value} for example in body.examples if example.media == media}
        if examples:
            content[media]["examples"] = examples
    return {"required": body.required, "content": content}


def _form(form: Any, media: str, names: Mapping[str, Any]) -> Document:
    """JSON by its type; what is bytes, or a text of another format, is a string to JSON Schema."""
    return _schema(form, names) if media == JSON and form is not bytes else {"type": "string"}


def _schema(form: Any, names: Mapping[str, Any]) -> Document:
    if isinstance(form, AnyOf):
        return {"anyOf": [dict(names[repr(one)]) for one in form.forms]}
    return dict(names[repr(form)])


def _answer(operation: Operation, answer: Answer, names: Mapping[str, Any]) -> Document:
    content: Document = {media: {} for media in answer.media}
    if answer.form is not bytes:
        content = {media: {"schema": _schema(answer.form, names)} for media in answer.media}
    if answer.example is not msgspec.UNSET:
        content[answer.media[0]]["example"] = answer.example
    headers = ["x-parvada-node", *(["x-parvada-index"] if operation.writes else []), "x-parvada-stale"]
    return {
        "description": answer.text or HTTPStatus(answer.status).phrase,
        "headers": _headers(headers),
        "content": content,
    }


def _refusal(status: int, names: Mapping[str, Any]) -> Document:
    more = {401: ["WWW-Authenticate"], 429: ["Retry-After"], 503: ["Retry-After"]}.get(status, [])
    return {
        "description": _REFUSED[status],
        "headers": _headers(["x-parvada-node", "x-parvada-stale", *more]),
        "content": {JSON: {"schema": _schema(schema.Problem, names)}},
    }


def _headers(names: Iterable[str]) -> Document:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
