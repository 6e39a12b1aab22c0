"""The nearest name, and what names and ids look like: the same to all that take, store or refuse one."""

import pytest

from parvada.identifiers import is_digest, is_name, is_node_id
from parvada.nearest import did_you_mean, nearest


@pytest.mark.parametrize(
    ("name", "found"),
    [("iirs", "Iris"), ("IRIS", "Iris"), ("Iris", "Iris"), ("wine", "wine"), ("boston", None), ("", None)],
)
def test_the_nearest_name_is_like_the_one_that_was_given(name: str, found: str | None) -> None:
    known = ["Iris", "wine"]
    assert nearest(name, known) == found
    assert did_you_mean(name, known) == (f" (did you mean {found!r}?)" if found else "")


def test_of_two_that_differ_in_capitals_the_first_is_nearest() -> None:
    assert nearest("aGe", ["Age", "AGE"]) == "Age"
    assert nearest("age", []) is None


@pytest.mark.parametrize("text", ["a", "0", "A.b_c-d", "x" * 128])
def test_a_name(text: str) -> None:
    assert is_name(text)


@pytest.mark.parametrize("text", ["", ".a", "-a", "a b", "a/b", "é", "a\n", "x" * 129, "٣"])
def test_no_name(text: str) -> None:
    assert not is_name(text)


def test_ids_and_digests_are_lower_case_hexadecimal_digits_of_one_length() -> None:
    for holds, length in ((is_node_id, 32), (is_digest, 64)):
        assert holds("0f" * (length // 2))
        for wrong in ("0F" * (length // 2), "0" * (length - 1), "0" * (length + 1), "0" * (length - 1) + "\n", ""):
            assert not holds(wrong)
