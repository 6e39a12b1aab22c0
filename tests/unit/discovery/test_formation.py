"""The formation rules as a table, and as properties of whole groups of nodes that decide at once."""

from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, strategies as st

from discovery.formation import Decision, Form, FormationView, Genesis, How, Join, Propose, Refuse, Resume, Wait, decide
from discovery.peer import Peer

A, B, C, D = (letter * 32 for letter in "abcd")


def blank(node: str) -> Peer:
    return Peer(node, ("10.0.0.1",), 7443, 7444, 8080, "blank", "", "f" * 16, "0.1.0")


def member(node: str, cluster: str = "1") -> Peer:
    return msgspec.structs.replace(blank(node), state="member", cluster_id=cluster)


def view(
    me: str = B,
    *peers: Peer,
    has_log: bool = False,
    confirmed: Sequence[str] | None = None,
    genesis: Genesis | None = None,
    expect: int = 0,
    quiet: float = 60.0,
    named: str = "",
    left: str = "",
    bound_for: str = "",
) -> FormationView:
    """By default everybody confirms and it has long been quiet: what would form, forms."""
    sees_me = frozenset(peer.id for peer in peers) if confirmed is None else frozenset(confirmed)
    return FormationView(me, has_log, peers, sees_me, genesis, expect, quiet, 5.0, named, left, bound_for)


MINE, OTHERS = Genesis(B, "1"), Genesis(A, "1")


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        # Rule 0: what is there goes on.
        (view(has_log=True), Resume()),
        (view(B, member(C, "2"), has_log=True, genesis=OTHERS, expect=3), Resume()),
        (view(B, blank(A), member(C)), Join(member(C))),
        (view(B, member(C), genesis=MINE), Join(member(C))),
        (view(B, member(C), quiet=0.0, confirmed=()), Join(member(C))),
        (view(B, member(C), expect=7), Join(member(C))),
        (view(B, member(D), member(C)), Join(member(C))),
        (view(B, member(C), member(D), genesis=Genesis(D, "1")), Join(member(D))),
        (view(B, member(C, "2"), member(D, "1"), genesis=OTHERS), Join(member(D, "1"))),
        # A node whose cluster has ended: into the other one, and not back into the old.
        (view(B, member(A, "1"), member(C, "2"), left="1", bound_for="2"), Join(member(C, "2"))),
        (view(B, member(A, "3"), member(C, "2"), left="1", bound_for="2"), Join(member(C, "2"))),
        (view(B, member(A, "1"), member(C, "2"), left="1"), Join(member(C, "2"))),
        (view(A, blank(B), left="1"), Form(How.DEVELOPMENT)),
        # Rule 1: the volume arbitrates.
        (view(genesis=MINE, quiet=0.0), Form(How.VOLUME)),
        (view(B, blank(A), blank(C), genesis=MINE, quiet=0.0, confirmed=()), Form(How.VOLUME)),
        (view(genesis=MINE, expect=3), Form(How.VOLUME)),
        # Rule 2: the lowest asks once a majority is in sight, and so does who was named before.
        (view(expect=1, quiet=0.0), Form(How.EXPECTED)),
        (view(A, blank(B), expect=3, quiet=0.0, confirmed=()), Propose()),
        (view(A, blank(B), blank(C), expect=3), Propose()),
        (view(B, blank(A), expect=3, named=B), Propose()),
        # Rule 3: the lowest of those that see one another.
        (view(), Form(How.DEVELOPMENT)),
        (view(A, blank(B), blank(C)), Form(How.DEVELOPMENT)),
    ],
)
def test_decides(case: FormationView, expected: Decision) -> None:
    assert decide(case) == expected


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (view(genesis=OTHERS), f"node {A} forms"),
        (view(A, blank(B), genesis=Genesis(B, "1")), f"node {B} forms"),
        (view(expect=3), "1 of 3 expected nodes in sight, 2 are needed"),
        (view(A, blank(B), expect=4, named=A), "2 of 4 expected nodes in sight, 3 are needed"),
        (view(B, blank(A), expect=3), f"node {A} has the lowest id in sight and asks"),
        (view(quiet=4.0), "more nodes"),
        (view(B, blank(A)), f"node {A} has the lowest id"),
        (view(B, blank(A), confirmed=()), f"node {A} has the lowest id"),
        (view(A, blank(B), blank(C), confirmed=[B]), f"node {C} is in sight but has not reached"),
        (view(B, member(A, "1"), left="1", bound_for="2"), "in favour of 2, of which none is in sight"),
        (view(B, member(A, "3"), left="1", bound_for="2"), "in favour of 2, of which none is in sight"),
    ],
)
def test_waits_and_says_for_whom(case: FormationView, reason: str) -> None:
    decision = decide(case)
    assert isinstance(decision, Wait)
    assert 0 < decision.seconds <= 5
    assert reason in decision.reason


def test_waits_for_the_rest_of_the_quiet_time() -> None:
    decision = decide(view(quiet=1.5))
    assert isinstance(decision, Wait)
    assert decision.seconds == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (view(A, blank(B), blank(C), blank(D), expect=3), "EXPECT is 3, but 4 new nodes are in sight"),
        (view(A, blank(B), expect=1), "EXPECT is 1, but 2 new nodes are in sight"),
        (view(B, member(C, "1"), member(D, "2")), "two clusters"),
        (view(B, member(C, "2"), member(D, "3"), genesis=OTHERS), "two clusters"),
    ],
)
def test_refuses_and_says_why(case: FormationView, reason: str) -> None:
    decision = decide(case)
    assert isinstance(decision, Refuse)
    assert reason in decision.reason


# ---- properties
nodes = st.sets(st.integers(0, 2**128 - 1).map("{:032x}".format), min_size=1, max_size=7)
seconds = st.floats(0, 100)


@st.composite
def views(draw: st.DrawFn) -> FormationView:
    ids = sorted(draw(nodes))
    me = draw(st.sampled_from(ids))
    peers = [draw(st.sampled_from([blank(n), member(n), member(n, "2")])) for n in ids if n != me]
    genesis = draw(st.one_of(st.none(), st.builds(Genesis, st.sampled_from(ids), st.sampled_from(["1", "2"]))))
    return FormationView(
        me=me,
        has_log=draw(st.booleans()),
        peers=tuple(draw(st.permutations(peers))),
        confirmed=frozenset(draw(st.sets(st.sampled_from(ids)))),
        genesis=genesis,
        expect=draw(st.integers(0, 5)),
        quiet=draw(seconds),
        quiet_needed=5.0,
    )


@given(views())
def test_never_forms_beside_a_member_or_over_a_log(case: FormationView) -> None:
    decision = decide(case)
    if case.has_log:
        assert decision == Resume()
    elif any(peer.state == "member" for peer in case.peers):
        assert isinstance(decision, Join | Refuse)
    if isinstance(decision, Join):
        assert decision.peer in case.peers
        assert decision.peer.state == "member"


@given(views(), st.randoms(use_true_random=False))
def test_order_of_sight_does_not_matter(case: FormationView, random: object) -> None:
    shuffled = msgspec.structs.replace(case, peers=tuple(reversed(case.peers)))
    first, second = decide(case), decide(shuffled)
    assert type(first) is type(second)
    assert first == second or isinstance(first, Refuse)


@given(nodes, seconds, st.data())
def test_a_group_that_sees_itself_has_at_most_one_former(ids: set[str], quiet: float, data: st.DataObject) -> None:
    """And exactly one once it is quiet."""
    formers = []
    for me in ids:
        others = [blank(node) for node in sorted(ids) if node != me]
        if isinstance(decide(view(me, *others, quiet=quiet)), Form):
            formers.append(me)
    assert formers == ([min(ids)] if quiet >= 5.0 else [])


@given(nodes, st.data())
def test_sight_may_be_partial_and_still_no_two_that_see_each_other_form(ids: set[str], data: st.DataObject) -> None:
    """Any sight at all, not even symmetric: of two nodes of which one sees the other, at most one forms."""
    ordered = sorted(ids)
    sees = {me: data.draw(st.sets(st.sampled_from(ordered))) - {me} for me in ordered}
    formers = set()
    for me in ordered:
        confirmed = [node for node in sees[me] if me in sees[node]]
        if isinstance(decide(view(me, *map(blank, sorted(sees[me])), confirmed=confirmed)), Form):
            formers.add(me)
    assert not [(one, two) for one in formers for two in formers if two in sees[one]]


@given(nodes, st.data())
def test_the_volume_has_one_former_whatever_is_seen(ids: set[str], data: st.DataObject) -> None:
    ordered = sorted(ids)
    genesis = Genesis(data.draw(st.sampled_from(ordered)), "1")
    formers = []
    for me in ordered:
        seen = sorted(data.draw(st.sets(st.sampled_from(ordered))) - {me})
        decision = decide(view(me, *map(blank, seen), genesis=genesis, quiet=data.draw(seconds)))
        if isinstance(decision, Form):
            formers.append(me)
    assert formers == [genesis.node_id]
