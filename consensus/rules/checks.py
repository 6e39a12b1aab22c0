"""What all rules share: how a rule is stamped, what it gives back or how it refuses, and the checks of values."""

import math
from typing import Any, Final, NoReturn

import msgspec

from consensus.messages import Event
from consensus.state import ClusterState, Json
from parvada.identifiers import is_digest, is_name, is_node_id

TASKS: Final = ("binary", "multiclass", "regression", "multilabel")
ENGINES: Final = ("onnx", "sklearn")
MAX_TEXT: Final = 1000
"""Longest free text (comments, reasons, column names) in characters."""


class Stamp(msgspec.Struct, frozen=True):
    """Where, when (seconds since 1970) and by whom: all that a rule may know beyond state and command."""

    index: int
    at: float
    actor: str


class Change(msgspec.Struct, frozen=True):
    """What a rule did. `state` is the very object that came in when nothing changed."""

    state: ClusterState
    events: tuple[Event, ...] = ()
    value: Json = Json(b"")


class Refused(Exception):
    """Raised by a rule, turned into `Rejected` by the machine; never leaves this package."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def refuse(code: str, reason: str) -> NoReturn:
    raise Refused(code, reason)


def json_object(**fields: Any) -> Json:
    return Json(msgspec.json.encode(fields))


def event(stamp: Stamp, kind: str, subject: str, **detail: Any) -> Event:
    return Event(stamp.index, stamp.at, kind, subject, json_object(**detail))


def shown(value: object) -> str:
    """A value as it may appear in a reason: quoted and short."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:76]}...{text[-1]}"


def cut(text: str) -> str:
    """Text that comes from a failure, shortened rather than refused."""
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 3] + "..."


def check_name(what: str, value: str) -> None:
    if not is_name(value):
        refuse(
            "invalid",
            f"{what} {shown(value)} is not a name: 1 to 128 letters, digits, '.', '_' or '-', "
            "the first a letter or digit",
        )


def check_node_id(value: str) -> None:
    if not is_node_id(value):
        refuse("invalid", f"node id {shown(value)} is not 32 lower-case hexadecimal digits")


def check_digest(what: str, value: str) -> None:
    if not is_digest(value):
        refuse("invalid", f"{what} {shown(value)} is not 64 lower-case hexadecimal digits")


def check_text(what: str, value: str, *, empty: bool = False, most: int = MAX_TEXT) -> None:
    if len(value) > most or not (value or empty):
        refuse("invalid", f"{what} {shown(value)} must have {0 if empty else 1} to {most} characters")


def check_count(what: str, value: int, least: int = 0, most: int = 2**63 - 1) -> None:
    if not least <= value <= most:
        refuse("invalid", f"{what} is {value}, it must be {least} to {most}")


def check_seconds(what: str, value: float, most: float = math.inf) -> None:
    if not (math.isfinite(value) and 0 <= value <= most):
        refuse("invalid", f"{what} is {value}, it must be finite and not negative")


def check_json(what: str, value: Json) -> None:
    """Opaque to the rules, which never parse it (a parser's depth limit differs between Python versions, and
    replicas must agree); this only keeps out what is plainly no object."""
    if not (value.startswith(b"{") and value.endswith(b"}")):
        refuse("invalid", f"{what} is not a JSON object: {shown(bytes(value[:40]))}")


def check_choice(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        refuse("invalid", f"{what} {shown(value)} is not one of {', '.join(allowed)}")
