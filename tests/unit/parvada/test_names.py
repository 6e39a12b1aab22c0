"""Columns' names and delimiters, as uploads, jobs and requests read them alike."""

import csv
import io

import pytest
from hypothesis import given, strategies as st

from parvada.delimited import DELIMITERS, delimiter_of
from parvada.names import AmbiguousName, ColumnNames, folded, header_names


@pytest.mark.parametrize(
    ("name", "looks"),
    [
        ("Prix\u00a0HT", "Prix HT"),
        ("Prix\u202fHT", "Prix HT"),
        ("Prix \n  HT", "Prix HT"),
        ("Prix\r\nHT", "Prix HT"),
        ("\tPrix\u2003HT ", "Prix HT"),
        ("Ver\u00adkaufs\u00adpreis", "Verkaufspreis"),
        ("\ufeffa\u200bb\u200dc\u2060", "abc"),
        ("prix ht", "prix ht"),
        ("\u200b \u00ad", ""),
    ],
)
def test_a_name_is_folded_to_what_it_looks_like(name: str, looks: str) -> None:
    assert folded(name) == looks
    assert ColumnNames(["x", name]).find(looks) == name
    assert ColumnNames(["x", looks]).find(name) == looks


def test_the_exact_name_wins_and_of_several_that_look_alike_none() -> None:
    names = ColumnNames(["a b", "a\u00a0b", "c"])
    assert [names.find(name) for name in ("a b", "a\u00a0b", "c", "d")] == ["a b", "a\u00a0b", "c", None]
    with pytest.raises(AmbiguousName, match=r"'a b', 'a\\xa0b'") as refused:
        names.find("a  b")
    assert refused.value.meant == ("a b", "a\u00a0b")


@given(st.lists(st.text(max_size=8), unique=True))
def test_every_column_can_be_named(names: list[str]) -> None:
    known = ColumnNames(names)
    assert [known.find(name) for name in names] == names


def test_a_blank_cell_of_a_header_is_named_by_its_place() -> None:
    assert header_names(["", " a\u00a0b ", "\u00ad", "c\u00ad"]) == ("column_1", "a\u00a0b", "column_3", "c\u00ad")


cells = st.text(st.characters(codec="utf-8", exclude_characters=DELIMITERS + '\r\n\0"'), min_size=1).filter(str.strip)


@given(
    st.integers(2, 5).flatmap(lambda width: st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1)),
    st.sampled_from(DELIMITERS),
)
def test_the_delimiter_is_found(rows: list[list[str]], delimiter: str) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows(rows)
    assert delimiter_of("\n\n" + text.getvalue()) == delimiter


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ('"Prix\nHT";b\n1,5;2,5\n', ";"),
        ('"a,b,c"|"d,e"\n"1,2"|x\n', "|"),
        ("note\nhello, world; and | more\n", None),
        ("", None),
        ("a;b\n" + "1,5;2,5\n" * 20_000, ";"),
    ],
)
def test_the_header_and_quotes_decide_on_the_delimiter(text: str, delimiter: str | None) -> None:
    assert delimiter_of(text) == delimiter
