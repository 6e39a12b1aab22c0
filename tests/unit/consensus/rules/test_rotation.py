"""Rotation of the cluster secret in the log: phases, confirmations, nodes that are away, and no secret anywhere."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, strategies as st

from consensus.codec import decode_state, encode_state
from consensus.messages import (
    AbandonRotation,
    BeginEpoch,
    BeginRotation,
    ConfirmRotation,
    ExcuseNode,
    JoinMember,
    RemoveMember,
)
from consensus.rules.rotation import digest_in_force, holders, waited_for
from consensus.state import NodeId, RotationPhase
from tests.unit.consensus.facts import A, B, C, Cluster, digest, kinds, member

NEW, OTHER = digest(1), digest(2)
SETTLED, PREPARE, PRESENT, RETIRE = RotationPhase
NODES = (A, B, C)


def begun(*more: Any) -> Cluster:
    return Cluster(*(JoinMember(member(node)) for node in NODES), BeginRotation(2, NEW, A), *more)


def confirm(cluster: Cluster, phase: RotationPhase, nodes: Sequence[NodeId] = NODES) -> list[str]:
    return [kind for node in nodes for kind in kinds(cluster.accept(ConfirmRotation(node, NEW, phase)))]


def test_a_phase_begins_when_all_members_have_confirmed_the_one_before() -> None:
    cluster = begun()
    for phase, after in ((PREPARE, PRESENT), (PRESENT, RETIRE), (RETIRE, SETTLED)):
        assert cluster.state.rotation.phase is phase
        assert waited_for(cluster.state) == NODES
        assert confirm(cluster, phase, [B, B, A]) == []
        assert waited_for(cluster.state) == (C,)
        assert confirm(cluster, phase, [C]) == ["secret.rotated" if after is SETTLED else "secret.rotating"]
        assert cluster.state.rotation.phase is after
    rotation = cluster.state.rotation
    assert (rotation.generation, rotation.digest, rotation.coming, waited_for(cluster.state)) == (2, NEW, "", ())
    assert decode_state(encode_state(cluster.state)) == cluster.state
    assert cluster.reject(BeginRotation(3, NEW, A)).code == "conflict"
    cluster.accept(BeginRotation(3, OTHER, B))


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (BeginRotation(3, NEW, A), "conflict"),
        (BeginRotation(1, NEW, A), "conflict"),
        (BeginRotation(2, "short", A), "invalid"),
        (BeginRotation(2, NEW, NodeId("d" * 32)), "conflict"),
        (ExcuseNode(A), "conflict"),
        (AbandonRotation(), "conflict"),
        (ConfirmRotation(A, "?", PREPARE), "invalid"),
        (ConfirmRotation(A, NEW, SETTLED), "invalid"),
    ],
)
def test_what_makes_no_sense_while_none_is_under_way(command: Any, code: str) -> None:
    cluster = Cluster(*(JoinMember(member(node)) for node in NODES))
    assert cluster.reject(command).code == code


def test_a_second_one_waits_for_the_first() -> None:
    assert begun().reject(BeginRotation(2, OTHER, B)).code == "conflict"


def test_confirmations_of_another_secret_phase_or_stranger_count_for_nothing() -> None:
    cluster = begun()
    for command in (
        ConfirmRotation(A, OTHER, PREPARE),
        ConfirmRotation(A, NEW, RETIRE),
        ConfirmRotation(NodeId("d" * 32), NEW, PREPARE),
    ):
        assert cluster.accept(command).events == ()
    assert waited_for(cluster.state) == NODES


def test_a_newcomer_is_waited_for_and_a_removed_node_is_not() -> None:
    cluster = begun()
    newcomer = NodeId("d" * 32)
    confirm(cluster, PREPARE, [A, B])
    cluster.accept(JoinMember(member(newcomer)))
    assert waited_for(cluster.state) == (C, newcomer)
    assert kinds(cluster.accept(RemoveMember(C))) == ["member.removed"]
    assert kinds(cluster.accept(RemoveMember(newcomer))) == ["member.removed", "secret.rotating"]
    assert cluster.state.rotation.phase is PRESENT


def test_an_excused_node_holds_nothing_up_until_it_does_its_part() -> None:
    cluster = begun()
    confirm(cluster, PREPARE, [A, B])
    assert kinds(cluster.accept(ExcuseNode(C))) == ["secret.node_excused", "secret.rotating"]
    assert waited_for(cluster.state) == (A, B)
    assert holders(cluster.state) == (A, B)
    confirm(cluster, PRESENT, [C])
    assert not cluster.state.rotation.excused
    confirm(cluster, PRESENT, [A, B])
    assert waited_for(cluster.state) == NODES
    cluster.accept(ExcuseNode(C))
    confirm(cluster, RETIRE, [A, B])
    assert cluster.state.rotation.phase is SETTLED
    assert cluster.state.rotation.excused == (C,)


def test_somebody_who_has_the_new_secret_must_be_left() -> None:
    cluster = begun()
    assert cluster.reject(ExcuseNode(A)).code == "conflict"
    confirm(cluster, PREPARE, [B])
    cluster.accept(ExcuseNode(A))
    assert cluster.accept(ExcuseNode(A)).events == ()
    assert cluster.reject(ExcuseNode(NodeId("d" * 32))).code == "not_found"
    cluster.accept(ExcuseNode(C))
    assert cluster.state.rotation.phase is PRESENT
    assert cluster.reject(ExcuseNode(B)).code == "conflict"


def test_nobody_goes_on_when_all_who_have_it_are_removed() -> None:
    cluster = Cluster(JoinMember(member(A)), JoinMember(member(B)), BeginRotation(2, NEW, A), ExcuseNode(B))
    cluster.accept(RemoveMember(A))
    assert (cluster.state.rotation.phase, holders(cluster.state)) == (PREPARE, ())
    cluster.accept(AbandonRotation())


def test_it_can_be_abandoned_until_somebody_presents_the_new_secret() -> None:
    cluster = begun()
    confirm(cluster, PREPARE, [A, C])
    assert holders(cluster.state) == (A, C)
    assert kinds(cluster.accept(AbandonRotation())) == ["secret.rotation_abandoned"]
    assert (cluster.state.rotation.phase, cluster.state.rotation.generation) == (SETTLED, 1)
    cluster.accept(BeginRotation(2, OTHER, B))
    assert confirm(cluster, PREPARE) == [], "of the secret that was abandoned"
    for node in NODES:
        cluster.accept(ConfirmRotation(node, OTHER, PREPARE))
    assert cluster.reject(AbandonRotation()).code == "conflict"


def test_an_epoch_takes_the_secret_that_is_presented_when_it_begins() -> None:
    cluster = begun()
    for number, phase in enumerate((PREPARE, PRESENT, RETIRE, SETTLED), 1):
        cluster.accept(BeginEpoch(number, A))
        expected = "" if phase is PREPARE else NEW
        assert (cluster.state.epoch.secret, digest_in_force(cluster.state.rotation)) == (expected, expected)
        if phase is not SETTLED:
            confirm(cluster, phase)


@given(
    st.lists(
        st.one_of(
            st.builds(
                ConfirmRotation, st.sampled_from(NODES), st.just(NEW), st.sampled_from([PREPARE, PRESENT, RETIRE])
            ),
            st.builds(ExcuseNode, st.sampled_from(NODES)),
            st.builds(RemoveMember, st.sampled_from(NODES)),
        ),
        max_size=25,
    )
)
def test_nobody_retires_before_all_who_count_present_and_nobody_presents_before_they_trust(commands: list[Any]) -> None:
    """In whatever order confirmations, excuses and removals come."""
    cluster, did = begun(), set[tuple[NodeId, RotationPhase]]()
    for command in commands:
        before = cluster.state.rotation
        if isinstance(command, ConfirmRotation) and command.phase is before.phase:
            did.add((command.node, command.phase))
        cluster.run(command)
        after = cluster.state.rotation
        if after.phase is not before.phase:
            counted = {*cluster.state.members} - {*after.excused}
            assert counted, "somebody has it"
            assert {(node, before.phase) for node in counted} <= did
