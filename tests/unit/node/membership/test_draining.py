"""What a node that is to leave still has to hand over."""

import pytest
from immutables import Map

from consensus.state import Blob, ClusterState, Digest, Member, MemberStatus, NodeId
from node.membership.draining import only_here, unmoved

DIGEST = Digest("1" * 64)


def state(held_by: str, active: str, draining: str = "", away: str = "") -> ClusterState:
    """One blob with these holders, in a cluster of these members."""
    status = dict.fromkeys(active, MemberStatus.ACTIVE) | dict.fromkeys(draining, MemberStatus.DRAINING)
    status |= dict.fromkeys(away, MemberStatus.AWAY)
    members = {
        NodeId(node): Member(NodeId(node), node, (), 1, 2, 3, 1, "1", 0.0, status=found)
        for node, found in status.items()
    }
    return ClusterState(members=Map(members), blobs=Map({DIGEST: Blob(7, tuple(map(NodeId, held_by)))}))


@pytest.mark.parametrize(
    ("held_by", "active", "draining", "away", "left"),
    [
        ("d", "abc", "d", "", 1),
        ("da", "abc", "d", "", 1),
        ("dab", "abc", "d", "", 1),
        ("dabc", "abc", "d", "", 0),
        ("abc", "abc", "d", "", 0),
        ("da", "a", "d", "", 0),
        ("dab", "ab", "d", "", 0),
        ("dae", "ab", "de", "", 1),
        ("dae", "ab", "d", "e", 1),
        ("d", "", "de", "", 1),
    ],
    ids=[
        "nobody else", "one of three", "two of three", "all three", "not its own", "as many as there are",
        "both of two", "one that drains too does not count", "nor one that is away", "nobody is left to take it",
    ],
)  # fmt: skip
def test_what_is_left_to_move(held_by: str, active: str, draining: str, away: str, left: int) -> None:
    assert unmoved(state(held_by, active, draining, away), NodeId("d"), copies=3) == left


@pytest.mark.parametrize(
    ("held_by", "within_reach", "only"),
    [("d", "abcd", True), ("da", "abcd", False), ("da", "bcd", True), ("ab", "cd", False)],
    ids=["it alone", "another too", "another that is out of reach", "not its own"],
)
def test_what_would_be_lost_without_it(held_by: str, within_reach: str, only: bool) -> None:
    found = only_here(state(held_by, "abcd"), NodeId("d"), frozenset(map(NodeId, within_reach)))
    assert found == (frozenset({DIGEST}) if only else frozenset())
