"""The rules of who votes, as tables, and by random walks that must end in a sound configuration."""

import pytest
from hypothesis import given, strategies as st
from msgspec.structs import replace

from consensus.state import MemberStatus, NodeId
from node.membership.voters import (
    AddVoter,
    Change,
    Limits,
    Mark,
    RemoveVoter,
    Seen,
    Transfer,
    View,
    may_stop,
    next_change,
    wanted_voters,
)

LIMITS = Limits(max_voters=5, promote_after=5.0, away_after=60.0)
ACTIVE, AWAY = MemberStatus.ACTIVE, MemberStatus.AWAY


def ids(text: str) -> frozenset[NodeId]:
    return frozenset(NodeId(letter) for letter in text)


def view(voters: str, members: dict[str, Seen], stopping: str = "", me: str = "a", leaving: str = "") -> View:
    named = {NodeId(node): seen for node, seen in members.items()}
    return View(NodeId(me), ids(voters), named, ids(stopping), ids(leaving))


HERE = Seen(ACTIVE, connected=True, unseen_for=0, caught_up_for=60)
NEW = Seen(ACTIVE, connected=True, unseen_for=0, caught_up_for=1)
LEAVING = Seen(MemberStatus.DRAINING, connected=True, unseen_for=0, caught_up_for=60)
GONE = Seen(ACTIVE, connected=False, unseen_for=10, caught_up_for=0)
DEAD = Seen(AWAY, connected=False, unseen_for=100, caught_up_for=0)


@pytest.mark.parametrize(("healthy", "wanted"), [(1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (6, 5), (7, 5), (30, 5)])
def test_number_of_voters(healthy: int, wanted: int) -> None:
    assert wanted_voters(healthy, 5) == wanted


@pytest.mark.parametrize(
    ("case", "given_view", "expected"),
    [
        ("a lone node is content", view("a", {"a": HERE}), None),
        ("a learner that is caught up becomes a voter", view("a", {"a": HERE, "b": HERE}), AddVoter(NodeId("b"))),
        ("a learner must be caught up for a while", view("a", {"a": HERE, "b": NEW}), None),
        ("a third joins two", view("ab", {"a": HERE, "b": HERE, "c": HERE}), AddVoter(NodeId("c"))),
        ("a fourth stays a learner", view("abc", dict.fromkeys("abcd", HERE)), None),
        ("of five all vote", view("abc", dict.fromkeys("abcde", HERE)), AddVoter(NodeId("d"))),
        ("a sixth stays a learner", view("abcde", dict.fromkeys("abcdef", HERE)), None),
        ("a voter gone for a moment keeps its vote", view("abc", {"a": HERE, "b": HERE, "c": GONE}), None),
        ("one unseen for long is marked", view("abc", {"a": HERE, "b": HERE, "c": Seen(ACTIVE, False, 61, 0)}),
         Mark(NodeId("c"), AWAY)),
        ("three voters are kept though one is dead", view("abc", {"a": HERE, "b": HERE, "c": DEAD}), None),
        ("a healthy learner takes the place of a dead voter", view("abc", {"a": HERE, "b": HERE, "c": DEAD, "d": HERE}),
         AddVoter(NodeId("d"))),
        ("not that of one gone for a moment", view("abc", {"a": HERE, "b": HERE, "c": GONE, "d": HERE}), None),
        ("then the dead one goes", view("abcd", {"a": HERE, "b": HERE, "c": DEAD, "d": HERE}),
         RemoveVoter(NodeId("c"))),
        ("that one is back is its own to say: it may be about to stop",
         view("ab", {"a": HERE, "b": Seen(AWAY, True, 0, 60)}), None),
        ("four voters are one too many", view("abcd", dict.fromkeys("abcd", HERE)), RemoveVoter(NodeId("d"))),
        ("the stopping lose their vote when some stay", view("abc", dict.fromkeys("abc", HERE), "bc"),
         RemoveVoter(NodeId("b"))),
        ("one of three that stops keeps its vote: it costs nothing, and may be needed",
         view("abc", dict.fromkeys("abc", HERE), "c"), None),
        ("so does one of five", view("abcde", dict.fromkeys("abcde", HERE), "e"), None),
        ("but not one of two", view("ab", dict.fromkeys("ab", HERE), "b"), RemoveVoter(NodeId("b"))),
        ("nor one of four", view("abcd", dict.fromkeys("abcd", HERE), "b"), RemoveVoter(NodeId("b"))),
        ("of three that stop of five one is kept", view("abcde", dict.fromkeys("abcde", HERE), "cde"),
         RemoveVoter(NodeId("c"))),
        ("and then it is enough", view("abe", dict.fromkeys("abcde", HERE), "cde"), None),
        ("when the next one stops, the vote of the one away goes first",
         view("abc", {"a": HERE, "b": DEAD, "c": HERE}, "c"), RemoveVoter(NodeId("b"))),
        ("and then its own", view("ac", {"a": HERE, "b": DEAD, "c": HERE}, "c"), RemoveVoter(NodeId("c"))),
        ("a stopping leader of three hands over and keeps its vote", view("abc", dict.fromkeys("abc", HERE), "a"),
         Transfer(NodeId("b"))),
        ("one that is removed loses its vote in any case", view("abc", dict.fromkeys("abc", HERE), leaving="c"),
         RemoveVoter(NodeId("c"))),
        ("a stopping leader hands over at last", view("ab", dict.fromkeys("abc", HERE), "a"), Transfer(NodeId("b"))),
        ("when all stop nothing changes", view("abc", dict.fromkeys("abc", HERE), "abc"), None),
        ("the one that has kept up for longest leads next", view("abc", {"a": HERE, "b": NEW, "c": HERE}, "a"),
         Transfer(NodeId("c"))),
        ("a dead voter that is removed loses its vote though only two are left",
         view("abc", {"a": HERE, "b": HERE, "c": DEAD}, leaving="c"), RemoveVoter(NodeId("c"))),
        ("of those to lose their vote the one goes that the others can do without",
         view("abcd", {"a": HERE, "b": HERE, "c": GONE, "d": GONE}, "bc"), RemoveVoter(NodeId("c"))),
        ("a draining leader hands over", view("abc", {"a": LEAVING, "b": HERE, "c": HERE}), Transfer(NodeId("b"))),
        ("but not to one that drains too", view("ab", {"a": LEAVING, "b": LEAVING}), None),
        ("a draining voter keeps its vote if nobody can take it", view("abc", {"a": HERE, "b": HERE, "c": LEAVING}),
         None),
        ("a learner takes the vote of a draining one", view("abc", {"a": HERE, "b": LEAVING, "c": HERE, "d": HERE}),
         AddVoter(NodeId("d"))),
        ("then the draining one loses it", view("abcd", {"a": HERE, "b": LEAVING, "c": HERE, "d": HERE}),
         RemoveVoter(NodeId("b"))),
        ("a draining learner gets no vote", view("ab", {"a": HERE, "b": HERE, "c": LEAVING}), None),
        ("that one drains is not forgotten while it is away",
         view("abc", {"a": HERE, "b": HERE, "c": Seen(MemberStatus.DRAINING, False, 100, 0)}), None),
        ("a staying learner votes first", view("ab", dict.fromkeys("abc", HERE), "ab"), AddVoter(NodeId("c"))),
    ],
)  # fmt: skip
def test_next_change(case: str, given_view: View, expected: Change | None) -> None:
    assert next_change(given_view, LIMITS) == expected, case


MUTE = Seen(ACTIVE, connected=True, unseen_for=0, caught_up_for=60, answers=False)


def test_votes_are_not_left_to_one_that_may_be_dead() -> None:
    """All others stop: found by the simulator, where a node's power failed a second before, and its disk with it."""
    members = dict.fromkeys("abcd", HERE) | {"e": MUTE}
    assert next_change(view("abcde", members, stopping="abcd"), LIMITS) is None
    assert next_change(view("ade", members, stopping="abcd"), LIMITS) is None, "a change that could not be committed"
    answering = members | {"e": HERE}
    assert next_change(view("abcde", answering, stopping="abcd"), LIMITS) == RemoveVoter(NodeId("b"))


def test_a_voter_stops_once_its_vote_has_gone_or_is_not_missed() -> None:
    three = dict.fromkeys("abc", HERE)
    stopping = NodeId("c")
    assert may_stop(view("abc", three, "c"), stopping)
    assert may_stop(view("ab", three, "c"), stopping), "it has none"
    behind = three | {"b": replace(HERE, caught_up_for=0.0)}
    assert not may_stop(view("abc", behind, "c"), stopping), "writes would wait until the other has caught up"
    assert not may_stop(view("abc", three | {"b": MUTE}, "c"), stopping), "nobody would be left to commit"
    assert not may_stop(view("ac", three, "c"), stopping), "two without one are none"
    assert not may_stop(view("abc", three, "bc"), stopping), "its vote goes first"
    assert not may_stop(view("abc", three, "a"), NodeId("a")), "it is the next leader's to say"


def test_a_surplus_vote_stays_while_another_voter_may_be_dead() -> None:
    members = dict.fromkeys("abc", HERE) | {"d": MUTE}
    assert next_change(view("abcd", members), LIMITS) is None
    assert next_change(view("abcd", dict.fromkeys("abcd", HERE)), LIMITS) == RemoveVoter(NodeId("d"))


def test_a_new_leader_first_hears_who_stops_before_it_takes_a_vote() -> None:
    fresh = View(NodeId("a"), ids("abcd"), {NodeId(node): HERE for node in "abcd"}, ids(""), settled=False)
    assert next_change(fresh, LIMITS) is None
    told = View(NodeId("a"), ids("abcd"), fresh.members, ids("c"), settled=False)
    assert next_change(told, LIMITS) == RemoveVoter(NodeId("c"))


seen_members = st.builds(
    Seen,
    status=st.sampled_from([ACTIVE, AWAY, MemberStatus.DRAINING]),
    connected=st.booleans(),
    unseen_for=st.sampled_from([0.0, 10.0, 100.0]),
    caught_up_for=st.sampled_from([0.0, 1.0, 60.0]),
    answers=st.booleans(),
)


def consistent(seen: Seen) -> Seen:
    return replace(seen, unseen_for=0.0 if seen.connected else seen.unseen_for)


@given(
    st.dictionaries(st.sampled_from("bcdefgh"), seen_members.map(consistent)),
    st.frozensets(st.sampled_from("bcdefgh")),
    st.frozensets(st.sampled_from("abcdefgh")),
    st.frozensets(st.sampled_from("bcdefgh")),
)
def test_changes_settle_and_never_cost_a_working_majority(
    others: dict[str, Seen], voting: frozenset[str], stopping: frozenset[str], leaving: frozenset[str]
) -> None:
    members = {NodeId("a"): HERE} | {NodeId(node): seen for node, seen in others.items()}
    voters = {NodeId("a")} | ids("".join(voting & others.keys()))
    going = (ids("".join(stopping)) & members.keys(), ids("".join(leaving)) & members.keys())
    now = View(NodeId("a"), frozenset(voters), members, *going)
    for _ in range(40):
        change = next_change(now, LIMITS)
        if change is None or isinstance(change, Transfer):
            break
        had_majority = _has_majority(now)
        now = _after(now, change)
        if had_majority or isinstance(change, RemoveVoter):
            assert _has_majority(now), change
        assert now.me in now.voters
    else:
        pytest.fail("the changes never settle")


def _has_majority(now: View) -> bool:
    """Of voters that answer."""
    living = {
        node for node in now.voters if node == now.me or (now.members[node].connected and now.members[node].answers)
    }
    return len(living) * 2 > len(now.voters)


def _after(before: View, change: Change) -> View:
    match change:
        case AddVoter(node):
            return replace(before, voters=before.voters | {node})
        case RemoveVoter(node):
            return replace(before, voters=before.voters - {node})
        case Mark(node, status):
            marked = replace(before.members[node], status=status)
            return replace(before, members={**before.members, node: marked})
    raise AssertionError(change)
