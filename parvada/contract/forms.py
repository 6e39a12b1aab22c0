"""JSON schemas in words for people, with links from one to another."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from parvada.contract.markup import Markup, element, joined, prose

Form = Mapping[str, Any]


def words(form: Form) -> Markup:
    """What a value may be, on one line."""
    if "$ref" in form:
        name = form["$ref"].rpartition("/")[2]
        return element("a", name, href=f"#schema-{name}")
    for several in ("anyOf", "oneOf"):
        if several in form and not all("format" in one for one in form[several]):
            return _or(words(one) for one in form[several])
    if "enum" in form:
        return _or(element("code", str(value)) for value in form["enum"] if value != "")
    if form.get("type") == "array":
        return joined(["list of ", words(form.get("items", {})), *_bounds(form, "Items", "")])
    if form.get("type") == "object" and isinstance(form.get("additionalProperties"), dict):
        return joined(["object of ", words(form["additionalProperties"])])
    return joined([form.get("type", "anything"), *_bounds(form, "imum", ""), *_bounds(form, "Length", " characters")])


def _value(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _or(parts: Iterator[Markup]) -> Markup:
    every = list(parts)
    return joined([every[0], *(joined([element("i", " or "), part]) for part in every[1:])])


def _bounds(form: Form, suffix: str, unit: str) -> Iterator[str]:
    low, high = form.get(f"min{suffix}"), form.get(f"max{suffix}")
    if low is not None and high is not None and high < 10**15:
        yield f" {low:,} to {high:,}{unit}"
    elif low is not None and low > 0:
        yield f" from {low:,}{unit}"
    elif high is not None and high < 10**15:
        yield f" up to {high:,}{unit if high != 1 else unit.removesuffix('s')}"


def table(form: Form) -> Markup:
    """The fields of an object."""
    required = set(form.get("required", ()))
    rows = (row(name, field, name in required) for name, field in form.get("properties", {}).items())
    return element("table", rows)


def row(name: str, form: Form, required: bool, text: str = "") -> Markup:
    """One field or parameter: its name, what it may be, and what it means."""
    default = form.get("default", msgspec.UNSET)
    shown = None if default in (msgspec.UNSET, None, "", [], {}) else _value(default)
    said = [
        element("span", words(form), class_="type"),
        element("span", "required", class_="required") if required else None,
        element("span", "default ", element("code", shown), class_="default") if shown else None,
    ]
    meaning = text or form.get("description", "")
    cell = element("td", element("div", said, class_="said"), element("div", prose(meaning)) if meaning else None)
    return element("tr", element("th", element("code", name), scope="row"), cell)
