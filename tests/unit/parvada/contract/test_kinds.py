"""Parameters by their declaration: what each kind reads and refuses, and what a query takes."""

from enum import StrEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest

from parvada.contract.kinds import Kind, LogIndex, Moment, duration, kind_of, parameters_of, said
from tests.unit.parvada.contract.declared import ShelfQuery


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


Few = Annotated[int, msgspec.Meta(ge=1, le=10)]
Minutes = Annotated[float, duration(r"^([1-9]s?|1m)$", "a time from 1s to 1m")]
DAY = 1_767_225_600.0


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        (str, " as it is", " as it is"),
        (Few, "1", 1),
        (Few | None, "10", 10),
        (LogIndex, "0", 0),
        (bool, "true", True),
        (bool, "false", False),
        (Literal["local", "linearizable"], "local", "local"),
        (Colour, "blue", Colour.BLUE),
        (Colour | None, "red", Colour.RED),
        (Minutes, "9", 9.0),
        (Minutes, "1m", 60.0),
        (Moment, "2026-01-01", DAY),
        (Moment, "2026-01-01T01:00:00+01:00", DAY),
        (Moment, "2026-01-01T01:00:00 01:00", DAY),  # the plus sign of a query that was not escaped
        (Moment, "0001-01-01T00:00:00+23:59", -62_135_683_140.0),
        (Annotated[str, said(enum=["a"])], "b", "b"),
    ],
)
def test_what_is_read(form: Any, text: str, value: Any) -> None:
    assert kind_of(form).read(text) == value


@pytest.mark.parametrize(
    ("form", "text", "allowed"),
    [
        (Few, "0", "a whole number from 1 to 10"),
        (Few, "11", "a whole number from 1 to 10"),
        (Few, "1.0", "a whole number from 1 to 10"),
        (Few, "", "a whole number from 1 to 10"),
        (Few, "٣", "a whole number from 1 to 10"),
        (LogIndex, "9" * 5000, "a log index, as in the id of an event"),
        (bool, "True", "true or false"),
        (Literal["a", "b", "c"], "d", "a, b or c"),
        (Colour, "RED", "red or blue"),
        (Minutes, "2m", "a time from 1s to 1m"),
        (Minutes, "1s\n", "a time from 1s to 1m"),
        (Moment, "soon", "a time such as 2026-05-01T12:00:00Z"),
    ],
)
def test_what_is_refused_and_what_would_be_right(form: Any, text: str, allowed: str) -> None:
    kind = kind_of(form)
    assert not _is_read(kind, text)
    assert kind.allowed == allowed


def _is_read(kind: Kind, text: str) -> bool:
    try:
        kind.read(text)
    except ValueError:
        return False
    return True


def test_what_no_text_can_be_is_found_where_it_is_declared() -> None:
    with pytest.raises(TypeError, match="dict"):
        kind_of(dict)


def test_a_query_takes_its_own_parameters_and_those_of_every_call() -> None:
    found = parameters_of(ShelfQuery)
    assert list(found) == ["min_index", "consistency", "limit", "label"]
    assert [name for name, parameter in found.items() if parameter.repeatable] == ["label"]
    assert found["limit"].default == 5
