"""The docstrings of fields, which Python does not keep: found in the source, so that what is said beside a field is
said once."""

import ast
import inspect
from collections.abc import Iterator, Mapping
from functools import cache
from types import ModuleType
from typing import Any, get_args

import msgspec


def of_fields(form: type[msgspec.Struct]) -> Mapping[str, str]:
    """By the name that the field has on the wire; those of the struct's bases too."""
    names = {field.name: field.encode_name for field in msgspec.structs.fields(form)}
    found: dict[str, str] = {}
    for base in reversed(form.__mro__):
        module = inspect.getmodule(base)
        if module is not None and issubclass(base, msgspec.Struct) and base is not msgspec.Struct:
            found |= _module(module).get(base.__name__, {})
    return {names[name]: text for name, text in found.items() if name in names}


@cache
def _module(module: ModuleType) -> Mapping[str, Mapping[str, str]]:
    """By class and field; empty where there is no source."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):
        return {}
    return {node.name: dict(_fields(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for field, after in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
            yield field.target.id, inspect.cleandoc(after.value.value).replace("\n", " ")


def structs_of(*forms: Any) -> frozenset[type[msgspec.Struct]]:
    """Every struct that these types have within them."""
    found: set[type[msgspec.Struct]] = set()
    _collect(forms, found)
    return frozenset(found)


def _collect(forms: Any, found: set[type[msgspec.Struct]]) -> None:
    for form in forms:
        if isinstance(form, type) and issubclass(form, msgspec.Struct) and form not in found:
            found.add(form)
            _collect((field.type for field in msgspec.structs.fields(form)), found)
        _collect(get_args(form), found)
