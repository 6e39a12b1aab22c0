"""Whom the greeter calls, and when: what the number of TLS handshakes of a large flock depends on."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Literal

import pytest
from immutables import Map
from msgspec.structs import replace

from consensus.state import ClusterState, Member, NodeId
from discovery.merging import Standing
from discovery.peer import Hint, Peer
from discovery.watcher import Watcher
from node.peering.client import PeerClient
from node.peering.greeter import AGAIN_SECONDS, FORGET_FAILURES, FORGET_SECONDS, Greeter, again_after
from node.peering.table import PeerTable
from node.peering.words import Grant, Greeting, PeerUnreachable
from tests.unit.node.peering.greeting import greet_due
from tests.unit.node.wait import eventually

ME, OTHER = NodeId("a" * 32), NodeId("b" * 32)
PLACE = ("127.0.0.1", 7443)


def peer(node: NodeId, state: Literal["blank", "member"] = "member", port: int = PLACE[1]) -> Peer:
    return Peer(
        id=node,
        addresses=(PLACE[0],),
        peer_port=port,
        raft_port=7444,
        api_port=8080,
        state=state,
        cluster_id="c0ffee" if state == "member" else "",
        fingerprint="f" * 16,
        version="1.0.0",
    )


class Recorder(PeerClient):
    """Answers as the other node would, and notes each call."""

    def __init__(self) -> None:
        self.greeted: list[tuple[str, int]] = []
        self.introduced: list[str] = []
        self.silent: set[int] = set()
        self.dead: set[int] = set()
        self.answers: dict[int, Greeting] = {}

    async def greet(self, address: str, port: int, me: Peer, last: NodeId | None = None) -> Greeting:
        self.greeted.append((address, port))
        self.introduced.append(me.id)
        if port in self.silent:
            await asyncio.Event().wait()
        if port in self.dead:
            raise PeerUnreachable("nobody listens")
        return self.answers.get(port) or Greeting(peer(OTHER), Grant("c0ffee", OTHER, "flock"))


class Scene:
    """A greeter with one hint, or those given; `connected` is what Raft says."""

    def __init__(self, *ports: int, me: Literal["blank", "member"] = "member") -> None:
        self.client, self.table = Recorder(), PeerTable(ME)
        self.connected: set[NodeId] = set()
        self.now = 1000.0
        self.watcher = watcher = Watcher([])
        watcher._hints = frozenset(Hint(PLACE[0], port) for port in ports or PLACE[1:])
        self.greeter = Greeter(
            self.client,
            self.table,
            watcher,
            lambda: peer(ME, me),
            lambda: self.connected,
            clock=lambda: self.now,
        )

    @contextlib.asynccontextmanager
    async def greeting(self) -> AsyncIterator[None]:
        running = asyncio.create_task(self.greeter.run(), name="greeter")
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])


def state_of(*nodes: NodeId) -> ClusterState:
    members = {node: Member(node, node[:4], ("127.0.0.1",), 7443, 7444, 8080, 1, "1.0.0", 0.0) for node in nodes}
    return ClusterState(cluster_id="c0ffee", members=Map(members))


async def test_a_stranger_is_greeted_once_and_told_who_we_are_and_then_left_alone_for_a_while() -> None:
    scene = Scene()
    await greet_due(scene.greeter)
    await greet_due(scene.greeter)
    assert scene.client.greeted == [PLACE]
    assert scene.client.introduced == [ME]
    assert set(scene.greeter.met) == {OTHER}


async def test_a_peer_that_raft_is_connected_to_costs_no_greeting() -> None:
    scene = Scene()
    scene.table.learn(peer(OTHER))
    scene.connected = {OTHER}
    await greet_due(scene.greeter)
    assert scene.client.greeted == []


async def test_a_peer_that_raft_has_lost_is_greeted_at_once() -> None:
    scene = Scene()
    scene.table.learn(peer(OTHER))
    scene.connected = {OTHER}
    await greet_due(scene.greeter)
    scene.connected = set()
    await greet_due(scene.greeter)
    assert scene.client.greeted == [PLACE]


async def test_one_greeted_before_raft_connected_is_due_at_once_when_the_connection_ends() -> None:
    scene = Scene()
    for connected in (set[NodeId](), {OTHER}, set[NodeId]()):
        scene.connected = connected
        await greet_due(scene.greeter)
    assert scene.client.greeted == [PLACE, PLACE]


async def test_one_that_has_come_over_from_another_cluster_is_asked_again_although_raft_has_reached_it() -> None:
    """What it said before would else be believed for minutes."""
    scene = Scene()
    other = Standing("bee", dissolvable=True, quorum=True)
    scene.client.answers = {PLACE[1]: Greeting(replace(peer(OTHER), cluster_id="bee"), standing=other)}
    await greet_due(scene.greeter)
    scene.connected = {OTHER}
    scene.client.answers.clear()
    scene.table.learn(peer(OTHER))  # it has introduced itself
    scene.greeter._due = dict.fromkeys(scene.greeter._due, 0.0)
    await greet_due(scene.greeter)
    assert scene.greeter.met[OTHER].cluster_id == "c0ffee"
    assert scene.greeter.standings == {}
    await greet_due(scene.greeter)
    assert scene.client.greeted == [PLACE, PLACE], "it has said so: from here on it costs no greeting"


async def test_it_is_asked_in_time_whenever_raft_reaches_it() -> None:
    scene = Scene()
    scene.client.answers = {PLACE[1]: Greeting(replace(peer(OTHER), cluster_id="bee"))}
    for connected in (set[NodeId](), {OTHER}):
        scene.connected = connected
        await greet_due(scene.greeter)
        assert scene.greeter._due[PLACE] == scene.now + AGAIN_SECONDS


@pytest.mark.parametrize(("places", "seconds"), [(0, AGAIN_SECONDS), (20, AGAIN_SECONDS), (30, 3.0), (58, 5.8)])
def test_the_more_places_are_known_the_longer_the_pause(places: int, seconds: float) -> None:
    assert again_after(places) == pytest.approx(seconds)


def test_the_slower_greetings_are_the_longer_the_pause() -> None:
    """They may be what the machine is busy with: nodes that time out and begin again would keep it so."""
    assert again_after(3, takes=0.01) == AGAIN_SECONDS
    assert again_after(3, takes=1.0) == 10.0


async def test_a_silent_peer_delays_nobody_else() -> None:
    """A stopped process takes the connection and says nothing; meanwhile the others are greeted again and again."""
    scene = Scene(7443, 7500)
    scene.client.silent = {7500}
    async with scene.greeting():
        await eventually(lambda: (PLACE[0], 7500) in scene.client.greeted)
        for times in range(1, 4):
            await eventually(lambda times=times: scene.client.greeted.count(PLACE) >= times)  # type: ignore[misc]
            scene.greeter.tell_all()
    assert scene.client.greeted.count((PLACE[0], 7500)) == 1


async def test_a_blank_node_that_may_join_leaves_the_other_places_for_later() -> None:
    scene = Scene(7443, *range(7500, 7520), me="blank")
    await greet_due(scene.greeter)
    first = len(scene.client.greeted)
    await greet_due(scene.greeter)
    assert len(scene.client.greeted) == first < 20


async def test_a_new_member_is_left_to_raft_but_not_by_one_that_comes_back() -> None:
    newcomer = Scene()
    newcomer.table.follow(state_of(OTHER), "f" * 16)
    await greet_due(newcomer.greeter)
    assert newcomer.client.greeted == []
    returned = Scene()
    returned.table.follow(state_of(ME, OTHER), "f" * 16)
    await greet_due(returned.greeter)
    assert returned.client.greeted == [PLACE], "who may have moved is told so at once"


async def test_a_peer_that_says_that_it_is_a_member_now_is_greeted_at_once() -> None:
    scene = Scene(me="blank")
    scene.client.answers = {PLACE[1]: Greeting(peer(OTHER, "blank"))}
    await greet_due(scene.greeter)
    scene.greeter.news.clear()
    scene.client.answers.clear()
    scene.table.learn(peer(OTHER))  # it has introduced itself
    await greet_due(scene.greeter)
    assert scene.greeter.met[OTHER].state == "member"
    assert scene.greeter.news.is_set()


async def test_whom_a_peer_knows_is_greeted_too() -> None:
    scene = Scene(me="blank")
    third, leader = NodeId("c" * 32), NodeId("d" * 32)
    grant = Grant("c0ffee", OTHER, "flock", peer(leader, port=7600))
    scene.client.answers = {PLACE[1]: Greeting(peer(OTHER), grant, (peer(third, "blank", 7500),))}
    await greet_due(scene.greeter)
    assert {hint.peer_port for hint in scene.watcher._found["peers"]} == {7500, 7600}


async def test_one_lost_answer_is_not_the_end_of_a_peer() -> None:
    scene = Scene()
    await greet_due(scene.greeter)
    scene.client.dead = {PLACE[1]}
    scene.now += 60
    await scene.greeter._greet(*PLACE)
    assert OTHER in scene.greeter.met
    await scene.greeter._greet(*PLACE)
    assert OTHER not in scene.greeter.met


async def test_nor_are_several_in_a_row_if_it_has_answered_a_moment_ago() -> None:
    scene = Scene()
    await greet_due(scene.greeter)
    scene.client.dead = {PLACE[1]}
    for _ in range(2 * FORGET_FAILURES):
        await scene.greeter._greet(*PLACE)
    assert OTHER in scene.greeter.met
    scene.now += FORGET_SECONDS
    await scene.greeter._greet(*PLACE)
    assert OTHER not in scene.greeter.met


def test_until_it_is_a_member_a_node_dials_only_whom_it_has_greeted() -> None:
    """All others do not know it yet: each would refuse it after a handshake, again and again."""
    table = PeerTable(ME)
    third = NodeId("c" * 32)
    table.follow(state_of(OTHER, third), "f" * 16)
    assert table.learn(replace(peer(OTHER), raft_port=7555))
    assert set(table.raft_peers()) == {OTHER}
    table.follow(state_of(ME, OTHER, third), "f" * 16)
    assert set(table.raft_peers()) == {OTHER, third}


def test_raft_leaves_the_members_of_other_clusters_alone() -> None:
    table = PeerTable(ME)
    third = NodeId("c" * 32)
    table.follow(replace(state_of(ME, OTHER), cluster_id="c0ffee"), "f" * 16)
    table.learn(peer(OTHER))
    table.learn(replace(peer(third), cluster_id="bee"))
    assert set(table.raft_peers()) == {OTHER}
    table.learn(peer(third, "blank"))
    assert set(table.raft_peers()) == {OTHER, third}, "it has started anew and may be about to join"


async def test_how_another_cluster_stands_is_known_for_as_long_as_its_member_is_in_sight() -> None:
    scene = Scene()
    other = Standing("bee", dissolvable=True, quorum=True)
    scene.client.answers = {PLACE[1]: Greeting(replace(peer(OTHER), cluster_id="bee"), standing=other)}
    await greet_due(scene.greeter)
    assert scene.greeter.standings == {OTHER: other}
    scene.client.answers = {}
    await scene.greeter._greet(*PLACE)
    assert scene.greeter.standings == {}, "it belongs to this node's cluster now"


async def test_a_member_that_is_out_of_sight_speaks_for_its_cluster_no_more() -> None:
    scene = Scene()
    other = Standing("bee", dissolvable=True, quorum=True)
    scene.client.answers = {PLACE[1]: Greeting(replace(peer(OTHER), cluster_id="bee"), standing=other)}
    await greet_due(scene.greeter)
    scene.client.dead = {PLACE[1]}
    scene.now += 60
    await scene.greeter._greet(*PLACE)
    await scene.greeter._greet(*PLACE)
    assert scene.greeter.standings == {}
