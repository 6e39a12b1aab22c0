"""The OpenAPI document as a page for people: one file that needs no script and nothing from anywhere else."""

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from itertools import repeat
from typing import Any

from parvada.contract.forms import row, table, words
from parvada.contract.markup import Markup, element, joined, prose

Document = Mapping[str, Any]


@cache
def _style() -> Markup:
    return Markup(files("parvada.contract").joinpath("page.css").read_text(encoding="utf-8"))


@cache
def headers() -> Mapping[str, str]:
    """With which the page is given: it may load and run nothing, and its own style is named by its hash."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def render(document: Document) -> str:
    """The whole page."""
    info = document["info"]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", f"{info['title']} {info['version']}: the HTTP API"),
        element("style", _style()),
    )
    body = element(
        "body", _contents(document), element("main", _about(document), _sections(document), _schemas(document))
    )
    return "<!doctype html>\n" + element("html", head, body, lang="en")


def _by_tag(document: Document) -> Iterator[tuple[Document, list[tuple[str, str, Document]]]]:
    """Each section with its calls: method, path and operation."""
    calls = [(method, path, call) for path, found in document["paths"].items() for method, call in found.items()]
    for tag in document["tags"]:
        yield tag, [each for each in calls if tag["name"] in each[2]["tags"]]


# ---------------------------------------------------------------- beside
def _contents(document: Document) -> Markup:
    info = document["info"]
    title = element("a", info["title"], element("small", info["version"]), href="#top", class_="title")
    groups = (
        joined(
            [
                element("a", tag["name"], href=f"#{_anchor(tag['name'])}", class_="group"),
                element("ul", (element("li", _link(*call)) for call in calls)),
            ]
        )
        for tag, calls in _by_tag(document)
    )
    return element("nav", title, groups, element("a", "Schemas", href="#schemas", class_="group"))


def _link(method: str, path: str, call: Document) -> Markup:
    return element("a", _method(method), element("span", _path(path), class_="path"), href=f"#{call['operationId']}")


def _method(method: str) -> Markup:
    return element("b", method.upper(), class_=f"method {method}")


def _path(path: str) -> Markup:
    """Its parameters stand out, and it may break before each slash."""
    parts = path.split("/")[1:]
    shown = (element("i", part) if part.startswith("{") else part for part in parts)
    return joined(joined(["/", part, Markup("<wbr>")]) for part in shown)


def _anchor(name: str) -> str:
    return "section-" + name.lower().replace(" ", "-")


# ---------------------------------------------------------------- the calls
def _about(document: Document) -> Markup:
    info = document["info"]
    raw = element("p", "For programs: ", element("a", "openapi.json", href="/openapi.json"), ", OpenAPI 3.1.")
    return element(
        "header", element("h1", info["title"]), element("p", info["summary"], class_="lead"),
        element("p", prose(info["description"])), raw, id="top",
    )  # fmt: skip


def _sections(document: Document) -> Iterator[Markup]:
    for tag, calls in _by_tag(document):
        heading = element("h2", tag["name"])
        shown = (_call(document, *call) for call in calls)
        yield element("section", heading, element("p", tag["description"]), shown, id=_anchor(tag["name"]))


def _call(document: Document, method: str, path: str, call: Document) -> Markup:
    headline = element(
        "summary",
        _method(method),
        element("code", _path(path), class_="path"),
        element("span", prose(call["summary"]), class_="about"),
        element("span", call["x-role"], class_="role", title="Needs a token of this role")
        if "x-role" in call
        else None,
    )
    parts = [
        element("p", prose(call["description"])) if call["description"] else None,
        element("pre", element("code", _curl(document, method, path, call)), class_="try"),
        _parameters(document, call),
        _body(call),
        _answers(document, call),
    ]
    return element("details", headline, element("div", parts, class_="call"), id=call["operationId"])


def _guarded(call: Document) -> bool:
    return bool(call["security"]) and {} not in call["security"]


def _resolved(document: Document, found: Document) -> Document:
    if "$ref" not in found:
        return found
    _, kind, name = found["$ref"].rsplit("/", 2)
    resolved: Document = document["components"][kind][name]
    return resolved


def _curl(document: Document, method: str, path: str, call: Document) -> str:
    """How to ask, with the examples put in."""
    for reference in call["parameters"]:
        parameter = _resolved(document, reference)
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
    lines = [f"curl {'' if method == 'get' else f'-X {method.upper()} '}localhost:8080{path}"]
    if _guarded(call):
        lines.append('-H "Authorization: Bearer $TOKEN"')
    media, example = next(_examples(call), (None, None))
    if media is not None:
        lines.append(f"-H 'Content-Type: {media}'")
        lines.append(
            "--data-binary @file" if isinstance(example, str) else f"-d '{json.dumps(example, ensure_ascii=False)}'"
        )
    return " \\\n  ".join(lines)


def _examples(call: Document) -> Iterator[tuple[str, Any]]:
    for media, content in call.get("requestBody", {}).get("content", {}).items():
        yield from ((media, example["value"]) for example in content.get("examples", {}).values())


def _parameters(document: Document, call: Document) -> Markup | None:
    found = [_resolved(document, reference) for reference in call["parameters"]]
    if not found:
        return None
    rows = (row(each["name"], each["schema"], each.get("required", False), each["description"]) for each in found)
    return joined([element("h3", "Parameters"), element("table", rows)])


def _body(call: Document) -> Markup | None:
    content: Document = call.get("requestBody", {}).get("content", {})
    if not content:
        return None
    rows = (_medium(media, found["schema"]) for media, found in content.items())
    examples = (
        joined([element("h4", name), element("pre", element("code", _shown(example["value"])))])
        for found in content.values()
        for name, example in found.get("examples", {}).items()
    )
    optional = "" if call["requestBody"]["required"] else " (may be empty)"
    return joined([element("h3", f"Body{optional}"), element("table", rows, class_="media"), examples])


def _medium(media: str, form: Document) -> Markup:
    shown = words(form) if media == "application/json" else "a file"
    return element("tr", element("th", element("code", media), scope="row"), element("td", shown, class_="said"))


def _shown(value: Any, room: int = 84) -> str:
    """A text as it is; JSON on one line where there is room for it."""
    if isinstance(value, str):
        return value
    line = json.dumps(value, ensure_ascii=False)
    if len(line) <= room or not isinstance(value, dict | list):
        return line
    open_, close = "{}" if isinstance(value, dict) else "[]"
    names = (f"{json.dumps(name, ensure_ascii=False)}: " for name in value) if isinstance(value, dict) else repeat("")
    parts = value.values() if isinstance(value, dict) else value
    inner = (name + _nested(part, room - 2) for name, part in zip(names, parts, strict=False))
    return f"{open_}\n" + ",\n".join(f"  {part}" for part in inner) + f"\n{close}"


def _nested(value: Any, room: int) -> str:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else _shown(value, room)
    return text.replace("\n", "\n  ")


def _answers(document: Document, call: Document) -> Markup:
    found = {status: _resolved(document, answer) for status, answer in call["responses"].items()}
    good = (_answer(status, answer) for status, answer in found.items() if status < "400")
    refused = (_answer(status, answer) for status, answer in sorted(found.items()) if status >= "400")
    example = next(
        (each["example"] for answer in found.values() for each in answer["content"].values() if "example" in each), None
    )
    return joined(
        [
            element("h3", "Answers"),
            element("table", good, refused, class_="answers"),
            joined([element("h4", "For example"), element("pre", element("code", _shown(example)))])
            if example
            else None,
        ]
    )


def _answer(status: str, answer: Document) -> Markup:
    forms = [content["schema"] for content in answer["content"].values() if "schema" in content]
    kind = words(forms[0]) if forms else joined(", ".join(answer["content"]))
    usual = status >= "400" and forms == [{"$ref": "#/components/schemas/Problem"}]
    said = element("div", element("span", kind, class_="type"), class_="said") if not usual else None
    meaning = element("td", said, prose(answer["description"]))
    return element("tr", element("th", element("code", status), scope="row"), meaning)


# ---------------------------------------------------------------- the schemas
def _schemas(document: Document) -> Markup:
    shown = (_schema(name, form) for name, form in sorted(document["components"]["schemas"].items()))
    return element("section", element("h2", "Schemas"), shown, id="schemas")


def _schema(name: str, form: Document) -> Markup:
    about = element("p", prose(form["description"])) if form.get("description") else None
    return element(
        "details",
        element("summary", element("code", name)),
        element("div", about, table(form), class_="call"),
        id=f"schema-{name}",
    )
