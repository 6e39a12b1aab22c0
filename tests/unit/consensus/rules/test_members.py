"""Who belongs to the cluster: joining, going away, coming back, leaving for good."""

import pytest

from consensus.messages import (
    BeginEpoch,
    DropBlobs,
    HoldBlobs,
    JoinMember,
    NameCluster,
    RemoveMember,
    SetMemberStatus,
)
from consensus.queries import active_members, available_holders
from consensus.state import MemberStatus, NodeId
from tests.unit.consensus.facts import A, B, C, Cluster, add, digest, kinds, member


def test_the_cluster_is_named_once() -> None:
    cluster = Cluster(NameCluster("c-1", "flock"))
    assert (cluster.state.cluster_id, cluster.state.name) == ("c-1", "flock")
    assert cluster.accept(NameCluster("c-1", "flock")).events == ()
    assert cluster.reject(NameCluster("c-2", "other")).code == "conflict"


def test_a_member_keeps_the_time_at_which_it_joined_and_gets_its_new_addresses() -> None:
    cluster = Cluster(JoinMember(member(A, joined_at=77.0)))
    joined = cluster.state.members[A].joined_at
    assert joined == 1001.0, "the entry's time counts, not what the node says"
    applied = cluster.accept(JoinMember(member(A, addresses=("10.0.0.9",))))
    assert kinds(applied) == ["member.updated"]
    assert cluster.state.members[A].addresses == ("10.0.0.9",)
    assert cluster.state.members[A].joined_at == joined


def test_joining_again_unchanged_tells_nobody() -> None:
    cluster = Cluster(JoinMember(member(A)))
    assert cluster.accept(JoinMember(member(A))).events == ()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (MemberStatus.ACTIVE, MemberStatus.ACTIVE),
        (MemberStatus.AWAY, MemberStatus.ACTIVE),
        (MemberStatus.DRAINING, MemberStatus.DRAINING),
    ],
)
def test_rejoining_brings_back_who_was_away_but_does_not_end_a_drain(before: MemberStatus, after: MemberStatus) -> None:
    cluster = Cluster(JoinMember(member(A)), SetMemberStatus(A, before), JoinMember(member(A)))
    assert cluster.state.members[A].status is after


def test_a_new_member_is_active_whatever_it_claims() -> None:
    cluster = Cluster(JoinMember(member(A, status=MemberStatus.AWAY)))
    assert [found.id for found in active_members(cluster.state)] == [A]


def test_an_away_member_stays_a_holder_but_is_not_asked() -> None:
    cluster = Cluster(
        JoinMember(member(A)), JoinMember(member(B)), add(holders=(A, B)), SetMemberStatus(A, MemberStatus.AWAY)
    )
    assert cluster.state.blobs[digest(1)].holders == (A, B)
    assert available_holders(cluster.state, digest(1)) == (B,)
    cluster.accept(JoinMember(member(A)))
    assert available_holders(cluster.state, digest(1)) == (A, B)


def test_a_removed_member_never_comes_back_and_holds_nothing() -> None:
    cluster = Cluster(JoinMember(member(A)), JoinMember(member(B)), add(holders=(A, B)), RemoveMember(A))
    assert cluster.state.blobs[digest(1)].holders == (B,)
    assert A in cluster.state.revoked
    for command in (
        JoinMember(member(A)),
        SetMemberStatus(A, MemberStatus.ACTIVE),
        BeginEpoch(1, A),
        HoldBlobs(A, (digest(1),)),
        DropBlobs(A, (digest(1),)),
    ):
        assert cluster.reject(command).code == "revoked"
    assert cluster.accept(RemoveMember(A)).events == (), "removing twice is removing once"


def test_the_last_member_stays() -> None:
    assert Cluster(JoinMember(member(A))).reject(RemoveMember(A)).code == "conflict"


def test_unknown_members() -> None:
    cluster = Cluster(JoinMember(member(A)))
    for command in (SetMemberStatus(C, MemberStatus.AWAY), RemoveMember(C), HoldBlobs(C, ())):
        assert cluster.reject(command).code == "not_found"


@pytest.mark.parametrize(
    "changes",
    [
        {"id": NodeId("A" * 32)},
        {"id": NodeId("a" * 31)},
        {"name": ""},
        {"name": "-n"},
        {"name": "a b"},
        {"name": "x\n"},
        {"addresses": ("",)},
        {"addresses": ("10.0.0.1",) * 17},
        {"raft_port": 65536},
        {"peer_port": -1},
        {"cpus": -1},
        {"version": "v" * 65},
    ],
)
def test_what_no_member_may_say_of_itself(changes: dict[str, object]) -> None:
    assert Cluster().reject(JoinMember(member(A, **changes))).code == "invalid"
