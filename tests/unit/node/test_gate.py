"""A member of another cluster under the same secret is noticed on both sides, and let in on neither."""

from typing import Literal, cast

from consensus.ports import Log
from consensus.state import ClusterState, NodeId
from discovery.peer import Peer
from node.gate import NodeGate
from node.joining import ClusterRecord
from node.membership import Membership
from node.peer_table import PeerTable

ME, OTHER = NodeId("a" * 32), NodeId("b" * 32)


class StateOnly:
    """The only thing that the gate asks of a log here."""

    state = ClusterState()


def peer(node: NodeId, cluster: str) -> Peer:
    state: Literal["blank", "member"] = "member" if cluster else "blank"
    return Peer(node, ("10.0.0.1",), 7443, 7444, 8080, state, cluster, "f" * 16, "0.1.0")


def member_of(cluster: str) -> NodeGate:
    gate = NodeGate(peer(ME, ""), PeerTable(ME), lambda: None)
    gate.belongs(ClusterRecord(cluster, ME, "parvada", "volume"), cast(Log, StateOnly()), cast(Membership, None))
    return gate


async def test_whoever_is_greeted_by_another_cluster_knows_of_the_split() -> None:
    gate = member_of("1")
    assert gate.split() == {}
    assert await gate.join(peer(OTHER, "2")) is None
    assert gate.split() == {OTHER: "2"}
    assert await gate.join(peer(OTHER, "1")) is not None, "it has started anew, and is ours"
    assert gate.split() == {}


async def test_whoever_meets_another_cluster_knows_too() -> None:
    gate = member_of("1")
    assert gate.split([peer(OTHER, "2"), peer(NodeId("c" * 32), "1"), peer(NodeId("d" * 32), "")]) == {OTHER: "2"}


async def test_a_blank_node_sees_no_split() -> None:
    gate = NodeGate(peer(ME, ""), PeerTable(ME), lambda: None)
    assert gate.split([peer(OTHER, "2")]) == {}
