"""Twenty nodes started at once, again and again, by each rule: one cluster, also when the network splits."""

import pytest
from hypothesis import given, strategies as st

from discovery.promises import Ask, Ballot, Founding, Promised, answer, choose, next_ballot, quorum_of, vote
from tests.simulation.formation import RULES, World

SEEDS = range(100)


@pytest.mark.parametrize("rule", RULES)
def test_twenty_nodes_at_once_end_in_one_cluster(rule: str) -> None:
    for seed in SEEDS:
        world = World(seed, rule, 20)
        # Rule 3 needs that all see one another by the time that it is quiet; the others do not.
        if rule == "development":
            world.loss = 0.0
        world.run(60.0)
        assert len(world.formed) == 1, (seed, world.formed)
        assert world.clusters == set(world.formed), seed
        assert not world.refused


@pytest.mark.parametrize("rule", ["volume", "expected"])
def test_a_partition_at_the_start_never_makes_two(rule: str) -> None:
    formed_early = 0
    for seed in SEEDS:
        world = World(seed, rule, 12, crashes=5)
        world.partition(2 + seed % 3)
        world.run(20.0)
        formed_early += len(world.formed)
        assert len(world.formed) <= 1, seed
        world.heal()
        world.run(80.0)
        assert len(set(world.formed)) == 1, (seed, world.formed)
        assert world.clusters == set(world.formed), seed
    assert formed_early, "no seed formed during its partition: this test would see nothing"


def apart(seed: int, sides: int) -> World:
    """Development mode, each side for itself until it has formed; then healed."""
    world = World(seed, "development", 9)
    world.loss = 0.0
    world.partition(sides)
    world.run(30.0)
    assert len(world.formed) == len(world.clusters) == len(set(world.side.values()))
    world.heal()
    return world


def test_development_mode_forms_one_a_side_which_become_one_again_while_they_are_bare() -> None:
    for seed in SEEDS:
        world = apart(seed, 2 + seed % 3)
        world.run(150.0, clusters=1)
        assert len(world.clusters) == 1, seed
        assert world.clusters <= set(world.formed), seed
        assert not world.clusters & world.ended.keys(), seed


def test_a_cluster_that_holds_something_outlives_all_that_do_not() -> None:
    for seed in SEEDS:
        world = apart(seed, 2 + seed % 3)
        world.full = {sorted(world.clusters)[seed % len(world.clusters)]}
        world.run(150.0, clusters=1)
        assert world.clusters == world.full, seed


def test_two_clusters_that_hold_something_stay_as_they_are() -> None:
    for seed in SEEDS:
        world = apart(seed, 2)
        world.full = set(world.clusters)
        before = {node.id: node.cluster for node in world.nodes.values()}
        world.run(world.now + 20.0, clusters=1)
        assert before == {node.id: node.cluster for node in world.nodes.values()}, seed
        assert not world.ended


def test_more_nodes_than_expected_refuse_rather_than_form_two() -> None:
    world = World(1, "expected", 7, expect=3)
    for node in world.nodes.values():
        node.starts = 0.0
    world.loss = 0.0
    world.run(5.0)
    assert not world.formed
    assert "EXPECT is 3, but 7 new nodes" in world.refused[0].reason


def test_a_minority_of_the_expected_waits() -> None:
    world = World(1, "expected", 9, expect=20)
    world.run(60.0)
    assert (world.formed, world.refused) == ([], [])


# ---- the rules of the promise itself
A, B = (Founding(letter * 32, letter, "parvada") for letter in "ab")


@pytest.mark.parametrize(("expect", "quorum"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (20, 11)])
def test_two_quorums_always_meet(expect: int, quorum: int) -> None:
    assert quorum_of(expect) == quorum
    assert 2 * quorum > expect


def test_a_promise_is_never_taken_back() -> None:
    held = answer(Promised(), Ask(Ballot(2, "b"), 3))
    assert not vote(held, Ask(Ballot(1, "z"), 3)).granted
    assert not vote(held, Ask(Ballot(2, "a"), 3, A)).granted
    assert answer(held, Ask(Ballot(2, "a"), 3, A)) == held
    assert answer(held, Ask(Ballot(2, "b"), 3, B)) == Promised(Ballot(2, "b"), Ballot(2, "b"), B)


def test_what_may_have_been_decided_is_proposed_again() -> None:
    accepted = Promised(Ballot(3, "b"), Ballot(2, "a"), A)
    asked = Ask(Ballot(4, "b"), 3)
    assert choose([vote(Promised(), asked), vote(accepted, asked)], B) == A
    assert choose([vote(Promised(), asked)], B) == B


@given(st.lists(st.builds(Ballot, st.integers(0, 9), st.sampled_from("abc"))))
def test_the_next_ballot_is_above_all_known(ballots: list[Ballot]) -> None:
    chosen = next_ballot([Promised(ballot) for ballot in ballots], "a")
    assert all(chosen > ballot for ballot in ballots)
