"""HTML from nested calls: whatever is not markup already is text, and is escaped."""

import html
import re
from collections.abc import Iterable

_CODE = re.compile(r"`([^`]+)`")
_EMPTY = frozenset({"meta", "link"})


class Markup(str):
    """HTML that may stand as it is."""

    __slots__ = ()


Child = str | Iterable["Child"] | None


def element(tag: str, *children: Child, **attributes: str | bool | None) -> Markup:
    """`<tag attribute="value">children</tag>`; `class_` is class, an underscore a hyphen, None and False leave out."""
    given = "".join(_attribute(name, value) for name, value in attributes.items() if value not in (None, False))
    if tag in _EMPTY:
        return Markup(f"<{tag}{given}>")
    return Markup(f"<{tag}{given}>{joined(children)}</{tag}>")


def _attribute(name: str, value: str | bool | None) -> str:
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{html.escape(str(value))}"'


def joined(children: Iterable[Child]) -> Markup:
    """One after another."""
    return Markup("".join(_text(child) for child in children))


def _text(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    return html.escape(child, quote=False) if isinstance(child, str) else joined(child)


def prose(text: str) -> Markup:
    """A text in which `this` is code."""
    parts = _CODE.split(text)
    return joined(element("code", part) if number % 2 else part for number, part in enumerate(parts))
