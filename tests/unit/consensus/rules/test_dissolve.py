"""A cluster ends in favour of another only while nobody has put anything in it, and takes nothing after that."""

import pytest

from consensus.codec import decode_state, encode_state
from consensus.messages import (
    AbandonRotation,
    AnnounceHead,
    Barrier,
    BeginEpoch,
    BeginRotation,
    Command,
    CreateToken,
    DeleteDataset,
    Dissolve,
    HoldBlobs,
    JoinMember,
    NameCluster,
    RaiseLevel,
    RemoveMember,
    RevokeToken,
    SetMemberStatus,
)
from consensus.rules.members import DEVELOPMENT, dissolvable
from consensus.state import MemberStatus, Role
from discovery.formation import How
from tests.unit.consensus.facts import A, B, C, Cluster, add, digest, kinds, member, submit

NAMED = NameCluster("c-1", "flock", DEVELOPMENT)
BARE = (NAMED, JoinMember(member(A)), JoinMember(member(B)), BeginEpoch(1, A), AnnounceHead(1, "10.0.0.1:6379"))
TOKEN = CreateToken("t-1", "ann", Role.VIEWER, "0" * 64)


def test_the_word_for_this_formation_is_that_of_discovery() -> None:
    assert How.DEVELOPMENT.value == DEVELOPMENT


def test_a_bare_cluster_ends_once() -> None:
    cluster = Cluster(*BARE)
    applied = cluster.accept(Dissolve("c-2"))
    assert kinds(applied) == ["cluster.dissolved"]
    assert cluster.state.dissolved == "c-2"
    assert cluster.accept(Dissolve("c-2")).events == ()
    assert cluster.reject(Dissolve("c-3")).code == "conflict"
    assert decode_state(encode_state(cluster.state)).dissolved == "c-2"


@pytest.mark.parametrize(
    "touched",
    [
        (add(),),
        (add(), DeleteDataset("iris")),
        (add(), submit()),
        (TOKEN,),
        (SetMemberStatus(B, MemberStatus.DRAINING),),
        (RemoveMember(B),),
        (BeginRotation(2, "1" * 64, A),),
    ],
)
def test_whatever_somebody_did_keeps_it_alive(touched: tuple[Command, ...]) -> None:
    cluster = Cluster(*BARE, *touched)
    assert not dissolvable(cluster.state)
    assert cluster.reject(Dissolve("c-2")).code == "conflict"


@pytest.mark.parametrize(
    "undone",
    [
        (TOKEN, RevokeToken("t-1")),
        (SetMemberStatus(B, MemberStatus.AWAY),),
        (RaiseLevel(1), HoldBlobs(A, (digest(1),)), Barrier()),
        (BeginRotation(2, "1" * 64, A), AbandonRotation()),
    ],
)
def test_what_leaves_nothing_behind_does_not(undone: tuple[Command, ...]) -> None:
    Cluster(*BARE, *undone).accept(Dissolve("c-2"))


@pytest.mark.parametrize("formation", ["volume", "expected", "recovered", ""])
def test_only_where_nothing_arbitrated(formation: str) -> None:
    """Elsewhere its nodes would form it again, or wait for it for ever."""
    cluster = Cluster(NameCluster("c-1", "flock", formation), JoinMember(member(A)))
    assert cluster.reject(Dissolve("c-2")).code == "conflict"


def test_not_into_itself_nor_into_nothing() -> None:
    cluster = Cluster(*BARE)
    assert cluster.reject(Dissolve("c-1")).code == "conflict"
    assert cluster.reject(Dissolve("")).code == "invalid"


@pytest.mark.parametrize(
    "late", [add(), TOKEN, JoinMember(member(C)), SetMemberStatus(B, MemberStatus.AWAY), BeginEpoch(2, B)]
)
def test_after_the_end_nothing_is_taken(late: Command) -> None:
    cluster = Cluster(*BARE, Dissolve("c-2"))
    refused = cluster.reject(late)
    assert refused.code == "dissolved"
    assert "about to join cluster c-2: ask again" in refused.reason
    cluster.accept(Barrier())
