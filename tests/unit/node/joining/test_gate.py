"""A member of another cluster under the same secret is noticed on both sides, and let in on neither."""

import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Literal, cast

import pytest
from msgspec.structs import replace

from consensus.ports import Log
from consensus.rules.members import DEVELOPMENT
from consensus.state import ClusterState, NodeId
from discovery.merging import Standing
from discovery.peer import Peer
from node.identity.pki import Identity
from node.joining.gate import SPLIT_SECONDS, MemberGate
from node.joining.joining import ClusterRecord
from node.membership.manager import Membership
from node.peering.gate import BlankGate
from node.peering.table import PeerTable

ME, OTHER = NodeId("a" * 32), NodeId("b" * 32)
EMPTY = ClusterState()
IDENTITY = SimpleNamespace(fingerprint="f" * 16)
BARE = ClusterState(cluster_id="1", formation=DEVELOPMENT)


class StateOnly:
    """All that the gate asks of a log here."""

    def __init__(self, state: ClusterState) -> None:
        self.state = state
        self.status = SimpleNamespace(leader=None, quorum=True)


def peer(node: NodeId, cluster: str) -> Peer:
    state: Literal["blank", "member"] = "member" if cluster else "blank"
    return Peer(node, ("10.0.0.1",), 7443, 7444, 8080, state, cluster, "f" * 16, "0.1.0")


def gate_of(
    log: StateOnly,
    cluster: str = "1",
    on_foreign: Callable[[Peer], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    table: PeerTable | None = None,
    identity: SimpleNamespace = IDENTITY,
) -> MemberGate:
    return MemberGate(
        peer(ME, ""),
        cast(Identity, identity),
        ClusterRecord(cluster, ME, "parvada", "volume"),
        PeerTable(ME) if table is None else table,
        cast(Log, log),
        cast(Membership, None),
        on_foreign,
        clock,
    )


def member_of(cluster: str, state: ClusterState = EMPTY) -> MemberGate:
    return gate_of(StateOnly(state), cluster)


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


async def test_a_blank_node_lets_nobody_in_and_knows_no_member() -> None:
    table = PeerTable(ME)
    gate = BlankGate(peer(ME, ""), table)
    assert await gate.join(peer(OTHER, "2")) is None
    assert gate.standing() is None
    assert not gate.is_member(OTHER)
    assert not await gate.stopping(OTHER, 1.0)
    assert table.find(OTHER) == peer(OTHER, "2"), "but it knows where it is"


async def test_a_member_shows_the_ca_of_its_present_certificate() -> None:
    identity = SimpleNamespace(fingerprint="f" * 16)
    gate = gate_of(StateOnly(EMPTY), identity=identity)
    assert (gate.hello().state, gate.hello().cluster_id, gate.hello().fingerprint) == ("member", "1", "f" * 16)
    identity.fingerprint = "e" * 16
    assert gate.hello().fingerprint == "e" * 16


async def test_other_clusters_that_are_gone_are_forgotten() -> None:
    now = 1000.0
    gate = gate_of(StateOnly(EMPTY), clock=lambda: now)
    for number in range(50):
        await gate.join(peer(NodeId(f"{number:032x}"), "2"))
        now += SPLIT_SECONDS / 10
    assert len(gate.split()) <= 11
    assert len(gate._split) <= 11


async def test_a_grant_names_the_leader_and_a_node_is_no_peer_of_itself() -> None:
    table, leads = PeerTable(ME), peer(OTHER, "1")
    log = StateOnly(EMPTY)
    log.status = SimpleNamespace(leader=OTHER)
    gate = gate_of(log, table=table)
    table.learn(leads)
    granted = await gate.join(peer(NodeId("c" * 32), ""))
    assert granted is not None
    assert granted.leader == leads
    assert await gate.join(gate.hello()) is None, "a seed may lead back to this node"
    blank = BlankGate(peer(ME, ""), table)
    assert await blank.join(blank.hello()) is None
    assert ME not in blank.heard()


async def test_a_member_of_another_cluster_is_greeted_in_turn() -> None:
    told: list[Peer] = []
    gate = gate_of(StateOnly(EMPTY), on_foreign=told.append)
    await gate.join(peer(OTHER, "2"))
    await gate.join(peer(OTHER, "1"))
    assert told == [peer(OTHER, "2")]


@pytest.mark.parametrize(
    ("state", "standing"),
    [
        (EMPTY, None),
        (BARE, Standing("1", dissolvable=True, quorum=True)),
        (replace(BARE, formation="volume"), Standing("1", dissolvable=False, quorum=True)),
        (replace(BARE, dissolved="2"), Standing("1", dissolvable=True, quorum=False)),
    ],
)
async def test_how_the_cluster_stands(state: ClusterState, standing: Standing | None) -> None:
    assert member_of("1", state).standing() == standing


async def test_nobody_is_let_into_a_cluster_that_has_ended() -> None:
    assert await member_of("1", BARE).join(peer(OTHER, "")) is not None
    assert await member_of("1", replace(BARE, dissolved="2")).join(peer(OTHER, "")) is None


async def test_a_node_that_has_joined_meanwhile_is_no_witness_for_forming() -> None:
    gate = BlankGate(peer(ME, ""), PeerTable(ME))
    await gate.join(peer(OTHER, ""))
    assert gate.heard() == {OTHER}
    await gate.join(peer(OTHER, "1"))
    assert gate.heard() == frozenset()
