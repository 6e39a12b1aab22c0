"""Nodes on one machine offer together what it has: as a property over whole clusters."""

from collections import defaultdict

from hypothesis import example, given, strategies as st
from msgspec.structs import replace

from consensus.shares import beside, cpu_shares
from consensus.state import Member, MemberStatus, NodeId
from tests.unit.consensus.facts import A, B, C, member

CORES = {"": 4, "big": 16, "small": 2}
"""Of each machine; a node that does not know its machine has four."""

kinds = st.tuples(
    st.sampled_from(sorted(CORES)), st.sampled_from(MemberStatus), st.one_of(st.none(), st.integers(1, 6))
)
clusters = st.lists(kinds, max_size=12)


def cluster(kinds: list[tuple[str, MemberStatus, int | None]]) -> list[Member]:
    return [
        replace(
            member(NodeId(f"{number:032x}")),
            machine=machine,
            status=status,
            cpus=given or CORES[machine],
            cpus_given=given is not None,
        )
        for number, (machine, status, given) in enumerate(kinds)
    ]


def on(machine: str, *nodes: NodeId, cpus: int = 2) -> list[Member]:
    return [replace(member(node), machine=machine, cpus=cpus) for node in nodes]


@given(clusters)
@example([("small", MemberStatus.ACTIVE, None)] * 3)
def test_shares_add_up_to_the_machine(kinds: list[tuple[str, MemberStatus, int | None]]) -> None:
    members = cluster(kinds)
    shares = cpu_shares(members)
    assert shares.keys() == {each.id for each in members}
    automatic: dict[str, list[int]] = defaultdict(list)
    told: dict[str, int] = defaultdict(int)
    for each in members:
        if each.status is not MemberStatus.ACTIVE:
            assert shares[each.id] == 0
        elif each.cpus_given:
            assert shares[each.id] == each.cpus
            told[each.machine] += each.cpus
        elif each.machine:
            automatic[each.machine].append(shares[each.id])
        else:
            assert shares[each.id] == CORES[""], "alone as far as it knows"
    for machine, found in automatic.items():
        left = CORES[machine] - told[machine]
        assert sum(found) == max(left, len(found)), "all that is left, or one each"
        assert max(found) - min(found) <= 1
        assert found == sorted(found, reverse=True), "the lowest ids have what is over"


@given(clusters, st.randoms())
def test_the_order_in_which_members_are_told_does_not_matter(kinds, order) -> None:  # type: ignore[no-untyped-def]
    members = cluster(kinds)
    shuffled = list(members)
    order.shuffle(shuffled)
    assert cpu_shares(members) == cpu_shares(shuffled)
    assert [beside(members, each.id) for each in members] == [beside(shuffled, each.id) for each in members]


@given(clusters)
def test_who_comes_takes_from_nobody_on_another_machine(kinds: list[tuple[str, MemberStatus, int | None]]) -> None:
    before = cluster(kinds)
    after = [*before, replace(member(NodeId("f" * 32)), machine="other", cpus=7)]
    shares = cpu_shares(after)
    assert {each.id: shares[each.id] for each in before} == cpu_shares(before)


def test_three_nodes_on_two_cores_have_one_each_and_the_one_that_is_left_has_both() -> None:
    three = on("m", A, B, C)
    assert cpu_shares(three) == {A: 1, B: 1, C: 1}
    assert (beside(three, B), beside(three, A)) == ([A, C], [B, C])
    left = [three[0], *(replace(each, status=MemberStatus.AWAY) for each in three[1:])]
    assert cpu_shares(left) == {A: 2, B: 0, C: 0}
    assert beside(left, A) == []
    assert beside(left, B) == []


def test_the_word_of_an_operator_is_taken_and_the_others_share_the_rest() -> None:
    one, two, three = on("m", A, B, C, cpus=8)
    members = [replace(one, cpus=5, cpus_given=True), two, three]
    assert cpu_shares(members) == {A: 5, B: 2, C: 1}
    assert (beside(members, A), beside(members, B)) == ([], [A, C])
