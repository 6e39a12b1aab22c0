"""Keys in a living cluster: renewed without a request lost, revoked at once, judged fairly by clocks that differ."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import pytest
from cryptography.hazmat.primitives import serialization

from consensus.core.base import Timers
from consensus.messages import JoinMember, NameCluster, RemoveMember
from consensus.state import Digest, Member, NodeId
from discovery.watcher import Watcher
from node.blobs.transfer import NoHolder
from node.identity import pki
from node.identity.pki import Identity, NodeKey
from node.membership.removal import Removal
from node.peering import connector as peer_connector
from node.peering.greeter import Greeter
from node.peering.words import ClocksDiffer, PeerRefused, PeerUnreachable
from tests.support.clock import Clock
from tests.support.memory_log import MemoryNetwork
from tests.unit.consensus.fabric import cluster
from tests.unit.node.fabric import AUTHORITY, Node, fabric
from tests.unit.node.peering.greeting import greet_due
from tests.unit.node.wait import eventually

BIG = os.urandom(8 * 1024 * 1024)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[Node]]:
    async with fabric(tmp_path, 3) as made:
        yield made


@pytest.fixture
def handshakes(monkeypatch: pytest.MonkeyPatch) -> list[NodeId]:
    """Whom the clients of this test have met, a connection each."""
    met: list[NodeId] = []
    check = peer_connector.PeerConnector._check

    def counting(self: peer_connector.PeerConnector, transport: asyncio.Transport) -> NodeId:
        met.append(check(self, transport))
        return met[-1]

    monkeypatch.setattr(peer_connector.PeerConnector, "_check", counting)
    return met


# ---------------------------------------------------------------- renewal
async def test_calls_and_transfers_go_on_while_every_node_renews(nodes: list[Node]) -> None:
    digest = await nodes[0].keep(BIG)
    done, stop = 0, asyncio.Event()

    async def call(caller: Node, callee: Node) -> None:
        nonlocal done
        while not stop.is_set():
            assert await caller.peers.notify_stopping(callee.id, 0)
            done += 1

    async def copy() -> None:
        while not stop.is_set():
            await nodes[2].transfer.fetch(digest, [nodes[0].id])
            await nodes[2].blobs.remove(digest)

    calls = [asyncio.create_task(call(one, other)) for one in nodes for other in nodes if one is not other]
    calls.append(asyncio.create_task(copy()))
    for renewals in range(10):
        for node in nodes:
            node.identity.renew()
        want = done + 20
        await eventually(lambda want=want: done >= want or any(task.done() for task in calls))  # type: ignore[misc]
        assert renewals < 10
    stop.set()
    await asyncio.gather(*calls)


async def test_a_connection_is_given_up_before_the_certificate_that_opened_it_ends(
    tmp_path: Path, nodes: list[Node], handshakes: list[NodeId]
) -> None:
    callee, fresh, _ = nodes
    behind = pki.LEAF_LIFETIME - timedelta(minutes=50)
    old = Node(tmp_path, now=lambda: datetime.now(UTC) - behind)
    behind = timedelta()  # since then all but 50 minutes of its leaf have passed
    old.table.learn(callee.hello())
    for node, expected in ((fresh, 1), (old, 3)):
        handshakes.clear()
        for _ in range(3):
            await node.peers.call(callee.id, "GET", "/peer/hello")
        assert handshakes == [callee.id] * expected
    await old.peers.close()


PATIENT = Timers(election_min=20.0, election_max=40.0, quorum=40.0)
"""Such nodes mind no pause of a busy machine: an election or a lost link has another cause."""


async def test_raft_links_carry_writes_while_every_node_renews(tmp_path: Path) -> None:
    async with cluster(tmp_path, timers=PATIENT) as three:
        leader = three.logs[await three.wait_for_leader()]
        term = leader.status.term
        # A majority elects: the third may still be dialling.
        await eventually(lambda: len(leader.status.connected) == 2)
        connected = set(leader.status.connected)
        for number in range(20):
            for identity in three.identities.values():
                identity.renew()
            await three.put("abc"[number % 3], f"key-{number}")
        await three.agree()
        assert len(leader.state.tokens) == 20
        assert leader.status.term == term
        assert set(leader.status.connected) == connected


# ---------------------------------------------------------------- revocation
async def removed_by(nodes: list[Node], gone: Node) -> None:
    """What each node does when it applies the removal."""
    network = MemoryNetwork([node.id for node in nodes])
    log = network.logs[nodes[0].id]
    await log.propose(NameCluster("c0ffee", "parvada"), actor="test")
    for number, node in enumerate(nodes):
        member = Member(node.id, f"node-{number}", ("127.0.0.1",), node.port, 1, 8080, 1, "0.1.0", 0.0)
        await log.propose(JoinMember(member), actor="test")
    await log.propose(RemoveMember(gone.id), actor="test")
    for node in nodes:
        if node is not gone:
            node.revoked.add(gone.id)
            node.table.follow(log.state, "0" * 16)
            removal = Removal(node.id, Path("slot"), lambda: None)
            await removal.follow(log.state, Cuts(), node.api, node.peers)
            assert not removal.happened.is_set()


class Cuts:
    """The place of the Raft log: `tests/cluster/test_integrity.py` has the real one."""

    def disconnect(self, node: NodeId) -> None: ...

    def renew_links(self) -> None: ...

    def judge_links_again(self) -> None: ...


async def test_a_removed_nodes_transfers_break_off_at_once_in_both_directions(nodes: list[Node], clock: Clock) -> None:
    gone, giver, taker = nodes
    theirs, ours = await giver.keep(BIG), await gone.keep(BIG[::-1])
    async with gone.peers.request(giver.id, "GET", f"/peer/blobs/{theirs}") as download:
        assert len(await download.content.readexactly(1000)) == 1000
        async with taker.peers.request(gone.id, "GET", f"/peer/blobs/{ours}") as upload:
            assert len(await upload.content.readexactly(1000)) == 1000
            with clock.standing():
                await removed_by(nodes, gone)
                for response in (upload, download):
                    with pytest.raises(Exception, match=r"(?i)clos|payload|reset|lost"):
                        await response.content.readexactly(len(BIG) - 1000)
    with pytest.raises((PeerRefused, PeerUnreachable)):
        await gone.peers.call(giver.id, "GET", "/peer/hello")
    with pytest.raises(NoHolder, match="revoked"):
        await gone.transfer.fetch(Digest("0" * 64), [giver.id])
    with pytest.raises(PeerUnreachable, match=r"no address|revoked"):
        await taker.peers.call(gone.id, "GET", "/peer/hello")


def greeter_of(node: Node, said: list[str]) -> Greeter:
    return Greeter(node.peers, node.table, Watcher([]), node.hello, frozenset, said.append)


async def test_a_removed_node_learns_it_from_whomever_it_greets(nodes: list[Node]) -> None:
    gone, other, _ = nodes
    said: list[str] = []
    greeter = greeter_of(gone, said)
    await greet_due(greeter)
    assert said == []
    other.revoked.add(gone.id)
    greeter._due.clear()
    await greet_due(greeter)
    assert said == [f"node {gone.id} is revoked"]


async def test_a_node_whose_own_log_says_so_ends_once_and_says_what_to_do(
    nodes: list[Node], caplog: pytest.LogCaptureFixture
) -> None:
    log = MemoryNetwork([node.id for node in nodes]).logs[nodes[0].id]
    for node in nodes:
        member = Member(node.id, "name", ("127.0.0.1",), 1, 1, 1, 1, "0.1.0", 0.0)
        await log.propose(JoinMember(member), actor="test")
    await log.propose(RemoveMember(nodes[1].id), actor="test")
    stops: list[int] = []
    removal = Removal(nodes[1].id, Path("/data/slots/2"), lambda: stops.append(1))
    for _ in range(2):
        await removal.follow(log.state, Cuts(), nodes[1].api, nodes[1].peers)
    assert removal.happened.is_set()
    assert stops == [1]


# ---------------------------------------------------------------- clocks
def clock_off_by(offset: timedelta) -> Callable[[], datetime]:
    """What a node takes for the time when it issues and judges certificates."""
    return lambda: datetime.now(UTC) + offset


@pytest.mark.parametrize("minutes", [-9, 9])
async def test_nine_minutes_either_way_are_nobodys_business(tmp_path: Path, minutes: int) -> None:
    early = Identity(AUTHORITY, NodeKey.generate(), ["127.0.0.1"], now=clock_off_by(timedelta(minutes=minutes)))
    theirs = early.issue().public_bytes(serialization.Encoding.DER)
    async with fabric(tmp_path, 1) as (node,):
        assert node.identity.identify(theirs) == early.id
        ours = node.identity.issue().public_bytes(serialization.Encoding.DER)
        assert early.identify(ours) == node.id
        connection = asyncio.open_connection("127.0.0.1", node.port, ssl=early.client_context())
        reader, writer = await asyncio.wait_for(connection, 30)
        writer.write(b"GET /peer/hello HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await asyncio.wait_for(reader.readline(), 30)
        writer.transport.abort()


@pytest.mark.parametrize(("days", "word"), [(1, "not yet valid"), (-2, "expired")])
async def test_a_clock_a_day_off_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int, word: str
) -> None:
    """The node whose clock is right calls one whose certificate is of another day."""
    async with fabric(tmp_path, 1) as (node,):
        wrong = Node(tmp_path, now=clock_off_by(timedelta(days=days)))
        wrong.port = await wrong.api.start("127.0.0.1", 0)
        try:
            with pytest.raises(ClocksDiffer, match=f"{word} by this node's clock .20..-.*compare the clocks"):
                await node.peers.greet("127.0.0.1", wrong.port, node.hello())
            warnings = Mock()
            monkeypatch.setattr("node.peering.greeter._log", warnings)
            greeter = greeter_of(node, [])
            for _ in range(3):
                await greeter._greet("127.0.0.1", wrong.port)
            ((event,), told) = warnings.warning.call_args
            assert event == "peer.clock"
            assert "compare the clocks" in told["reason"]
            assert warnings.warning.call_count == 1, "once a minute, not at every greeting"
            der = wrong.identity._leaf.public_bytes(serialization.Encoding.DER)
            with pytest.raises(PermissionError, match="compare the clocks"):
                node.identity.identify(der)
        finally:
            await wrong.stop()


async def test_other_failures_do_not_blame_the_clock(nodes: list[Node]) -> None:
    with pytest.raises(PeerUnreachable) as failed:
        await nodes[0].peers.greet("127.0.0.1", 1, nodes[0].hello())
    assert not isinstance(failed.value, ClocksDiffer)
    assert ssl.OPENSSL_VERSION_INFO >= (1, 1, 1)
