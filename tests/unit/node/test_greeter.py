"""Whom the greeter calls, and when: what the number of TLS handshakes of a large flock depends on."""

import pytest

from consensus.state import NodeId
from discovery.peer import Hint, Peer
from discovery.watcher import Watcher
from node.greeter import AGAIN_SECONDS, Greeter, again_after
from node.peer_table import PeerTable
from node.peers import Grant, PeerClient

ME, OTHER = NodeId("a" * 32), NodeId("b" * 32)
PLACE = ("127.0.0.1", 7443)


def peer(node: NodeId) -> Peer:
    return Peer(
        id=node,
        addresses=(PLACE[0],),
        peer_port=PLACE[1],
        raft_port=7444,
        api_port=8080,
        state="member",
        cluster_id="c0ffee",
        fingerprint="f" * 16,
        version="1.0.0",
    )


class Recorder(PeerClient):
    """Answers as the other node would, and notes each call."""

    def __init__(self) -> None:
        self.greeted: list[tuple[str, int]] = []
        self.introduced: list[NodeId] = []

    async def hello(self, address: str, port: int) -> Peer:
        self.greeted.append((address, port))
        return peer(OTHER)

    async def join(self, node: NodeId, me: Peer) -> Grant:
        self.introduced.append(node)
        return Grant("c0ffee", OTHER, "flock")


class Scene:
    """A greeter with one hint; `connected` is what Raft says."""

    def __init__(self) -> None:
        self.client, self.table = Recorder(), PeerTable(ME)
        self.connected: set[NodeId] = set()
        watcher = Watcher([])
        watcher._hints = frozenset({Hint(*PLACE)})
        self.greeter = Greeter(self.client, self.table, watcher, lambda: peer(ME), lambda: self.connected, lambda: None)


async def test_a_stranger_is_greeted_introduced_to_and_then_left_alone_for_a_while() -> None:
    scene = Scene()
    await scene.greeter.greet_due()
    await scene.greeter.greet_due()
    assert scene.client.greeted == [PLACE]
    assert scene.client.introduced == [OTHER]
    assert set(scene.greeter.met) == {OTHER}


async def test_a_peer_that_raft_is_connected_to_costs_no_greeting() -> None:
    scene = Scene()
    scene.table.learn(peer(OTHER))
    scene.connected = {OTHER}
    await scene.greeter.greet_due()
    assert scene.client.greeted == []


async def test_a_peer_that_raft_has_lost_is_greeted_at_once() -> None:
    scene = Scene()
    scene.table.learn(peer(OTHER))
    scene.connected = {OTHER}
    await scene.greeter.greet_due()
    scene.connected = set()
    await scene.greeter.greet_due()
    assert scene.client.greeted == [PLACE]


async def test_one_greeted_before_raft_connected_is_due_at_once_when_the_connection_ends() -> None:
    scene = Scene()
    for connected in (set[NodeId](), {OTHER}, set[NodeId]()):
        scene.connected = connected
        await scene.greeter.greet_due()
    assert scene.client.greeted == [PLACE, PLACE]


@pytest.mark.parametrize(("places", "seconds"), [(0, AGAIN_SECONDS), (20, AGAIN_SECONDS), (30, 3.0), (58, 5.8)])
def test_the_more_places_are_known_the_longer_the_pause(places: int, seconds: float) -> None:
    assert again_after(places) == pytest.approx(seconds)
