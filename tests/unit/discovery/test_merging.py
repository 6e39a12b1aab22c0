"""Which of two clusters under one secret ends: never both by one knowledge, never one that holds something."""

import pytest
from hypothesis import given, strategies as st

from discovery.merging import Standing, abandoned_for, ends_for

ids = st.sampled_from(["1", "2", "3", "4"])
standings = st.builds(Standing, ids, st.booleans(), st.booleans())


def bare(cluster: str, quorum: bool = True) -> Standing:
    return Standing(cluster, dissolvable=True, quorum=quorum)


def full(cluster: str, quorum: bool = True) -> Standing:
    return Standing(cluster, dissolvable=False, quorum=quorum)


@pytest.mark.parametrize(
    ("own", "others", "into"),
    [
        (bare("2"), [], ""),
        (bare("2"), [bare("2")], ""),
        (bare("2"), [bare("1")], "1"),
        (bare("1"), [bare("2")], ""),
        (bare("1"), [full("2")], "2"),
        (full("2"), [bare("1")], ""),
        (full("2"), [full("1")], ""),
        (bare("1"), [full("2", quorum=False)], ""),
        (bare("2"), [bare("1", quorum=False)], ""),
        (bare("3"), [bare("2"), bare("1"), full("4")], "1"),
    ],
)
def test_who_ends_for_whom(own: Standing, others: list[Standing], into: str) -> None:
    assert ends_for(own, others) == into


@given(standings, standings)
def test_of_two_that_know_each_other_at_most_one_ends(one: Standing, other: Standing) -> None:
    assert not (ends_for(one, [other]) and ends_for(other, [one]))


@given(st.lists(standings, min_size=2, max_size=4, unique_by=lambda standing: standing.cluster_id))
def test_among_all_that_know_one_another_one_stays(group: list[Standing]) -> None:
    stay = [own for own in group if not ends_for(own, group)]
    assert stay
    assert all(standing in stay for standing in group if not standing.dissolvable)
    if all(standing.quorum for standing in group):
        assert len([standing for standing in stay if standing.dissolvable]) <= 1


@pytest.mark.parametrize("text", ["", "../x", "A" * 8, "0" * 65])
def test_an_id_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a cluster id"):
        bare(text)


LOST = bare("1", quorum=False)


@pytest.mark.parametrize(
    ("own", "voters", "elsewhere", "into"),
    [
        (LOST, "abc", {"a": "2", "b": "2"}, "2"),
        (LOST, "abc", {"a": "2"}, ""),
        (LOST, "ab", {"a": "2"}, "2"),
        (LOST, "a", {"a": "2"}, "2"),
        (LOST, "abcd", {"a": "2"}, ""),
        (LOST, "abcd", {"a": "2", "b": "3"}, "2"),
        (LOST, "abcde", {"a": "3", "b": "3", "c": "2"}, "3"),
        (LOST, "abc", {"x": "2", "y": "2", "z": "2"}, ""),
        (bare("1"), "abc", {"a": "2", "b": "2"}, ""),
        (full("1", quorum=False), "abc", {"a": "2", "b": "2", "c": "2"}, ""),
        (LOST, "", {}, ""),
    ],
)
def test_a_node_follows_the_voters_that_its_cluster_cannot_do_without(
    own: Standing, voters: str, elsewhere: dict[str, str], into: str
) -> None:
    assert abandoned_for(own, frozenset(voters), elsewhere) == into
