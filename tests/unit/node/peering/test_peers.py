"""Peers over real mutual TLS: who may call what, whom a call reaches, blobs that survive bad lines and copies."""

import asyncio
import hashlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web
from immutables import Map

from consensus.state import ClusterState, Digest, Member, NodeId
from discovery.peer import Peer
from node.blobs.pace import Pace
from node.blobs.room import DiskFull, Limits
from node.blobs.transfer import NoHolder
from node.blobs.writer import BlobWriter
from node.peering.client import GREETING_SECONDS
from node.peering.connector import PeerConnector
from node.peering.table import PeerTable
from node.peering.words import PeerRefused, PeerUnreachable
from tests.support.clock import Clock
from tests.unit.node.fabric import CLUSTER, STRANGERS, Node, fabric

BIG = os.urandom(3 * 1024 * 1024)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[Node]]:
    async with fabric(tmp_path, 3) as made:
        yield made


@pytest.fixture
async def stranger(tmp_path: Path) -> AsyncIterator[Node]:
    """Has another cluster's secret."""
    made = Node(tmp_path, STRANGERS)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def blank(tmp_path: Path, nodes: list[Node]) -> AsyncIterator[Node]:
    """Has the secret, and is no member."""
    made = Node(tmp_path)
    await made.start()
    made.table.learn(nodes[0].hello())
    yield made
    await made.stop()


# ---------------------------------------------------------------- who may call
async def test_no_certificate_no_answer(nodes: list[Node]) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"https://127.0.0.1:{nodes[0].port}/peer/hello")
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientError):
            await session.get(f"http://127.0.0.1:{nodes[0].port}/peer/hello")


async def test_another_secret_gets_nowhere_in_either_direction(nodes: list[Node], stranger: Node) -> None:
    with pytest.raises(PeerUnreachable):
        await stranger.peers.greet("127.0.0.1", nodes[0].port, stranger.hello())
    with pytest.raises(PeerUnreachable):
        await nodes[0].peers.greet("127.0.0.1", stranger.port, nodes[0].hello())


async def test_hello_tells_who_is_there(nodes: list[Node]) -> None:
    answer = await nodes[0].peers.call(nodes[1].id, "GET", "/peer/hello")
    assert msgspec.json.decode(answer, type=Peer) == nodes[1].hello()


async def test_a_blank_node_may_greet_ask_and_nothing_else(nodes: list[Node], blank: Node) -> None:
    member = nodes[0]
    hello = msgspec.json.decode(await blank.peers.call(member.id, "GET", "/peer/hello"), type=Peer)
    assert hello.cluster_id == CLUSTER
    assert (await blank.peers.join(member.id, blank.hello())).genesis == member.id
    assert [peer.id for peer in member.joined] == [blank.id]
    digest = await member.keep(b"data")
    for method, path in [
        ("GET", f"/peer/blobs/{digest}"),
        ("PUT", f"/peer/blobs/{digest}"),
        ("POST", f"/peer/blobs/{digest}/verify"),
        ("POST", "/peer/stopping"),
    ]:
        with pytest.raises(PeerRefused) as refused:
            await blank.peers.call(member.id, method, path)
        assert refused.value.status == 403


async def test_calls_that_a_room_mounts_while_the_port_is_open_are_served_like_any_other(nodes: list[Node]) -> None:
    async def call(request: web.Request) -> web.Response:
        return web.Response(text=request.match_info["name"])

    async def asked(method: str, path: str) -> int:
        with pytest.raises(PeerRefused) as refused:
            await nodes[0].peers.call(nodes[1].id, method, path)
        return refused.value.status

    assert await asked("POST", "/peer/late/ann") == 404
    nodes[1].api.mount([web.post("/peer/late/{name}", call)])
    assert await nodes[0].peers.call(nodes[1].id, "POST", "/peer/late/ann") == b"ann"
    assert await asked("GET", "/peer/late/ann") == 405
    assert await asked("POST", "/peer/late") == 404
    nodes[1].members.discard(nodes[0].id)
    assert await asked("POST", "/peer/late/ann") == 403


async def test_one_greeting_introduces_both(nodes: list[Node], blank: Node) -> None:
    member = nodes[0]
    greeting = await blank.peers.greet("127.0.0.1", member.port, blank.hello())
    assert greeting.peer == member.hello()
    assert greeting.grant is not None
    assert [peer.id for peer in member.joined] == [blank.id]
    assert {peer.id for peer in greeting.known} == {nodes[1].id, nodes[2].id}, "a newcomer is told of the others"
    between_members = await nodes[1].peers.greet("127.0.0.1", member.port, nodes[1].hello())
    assert between_members.known == (), "members know them from the log"


async def test_further_greetings_need_no_handshake(nodes: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    caller, callee, _ = nodes
    await caller.peers.greet("127.0.0.1", callee.port, caller.hello())
    monkeypatch.setattr(PeerConnector, "_wrap_create_connection", None)  # whoever connects fails
    for _ in range(3):
        assert (await caller.peers.greet("127.0.0.1", callee.port, caller.hello(), callee.id)).peer == callee.hello()
    assert await caller.peers.notify_stopping(callee.id, 1), "other calls share the connection"


async def test_a_place_that_another_node_has_taken_over_is_not_greeted_as_the_old_one(nodes: list[Node]) -> None:
    caller, old, new = nodes
    await caller.peers.greet("127.0.0.1", old.port, caller.hello())
    with pytest.raises(PeerUnreachable, match=f"node {new.id} answered where node {old.id} was expected"):
        await caller.peers.greet("127.0.0.1", new.port, caller.hello(), old.id)
    assert (await caller.peers.greet("127.0.0.1", new.port, caller.hello())).peer.id == new.id


async def test_nobody_is_greeted_as_somebody_else(nodes: list[Node], blank: Node) -> None:
    with pytest.raises(PeerRefused, match="cannot join as"):
        await blank.peers.greet("127.0.0.1", nodes[0].port, nodes[1].hello())
    assert nodes[0].joined == []


async def test_a_process_that_takes_the_connection_and_says_nothing_is_given_up(
    nodes: list[Node], clock: Clock
) -> None:
    """What a stopped process looks like from outside: the kernel accepts for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        greeting = nodes[0].peers.greet("127.0.0.1", silent.getsockname()[1], nodes[0].hello())
        waiting = asyncio.create_task(greeting)
        await clock.advance(GREETING_SECONDS / 5)
        assert not waiting.done()
        await clock.advance(GREETING_SECONDS)
        with clock.standing(), pytest.raises(PeerUnreachable):
            await waiting


async def test_a_node_joins_only_as_itself(nodes: list[Node], blank: Node) -> None:
    with pytest.raises(PeerRefused, match="cannot join as"):
        await blank.peers.join(nodes[0].id, nodes[1].hello())
    assert nodes[0].joined == []


async def test_a_node_that_must_stay_outside_is_told_so(nodes: list[Node], blank: Node) -> None:
    nodes[0].banned.add(blank.id)
    with pytest.raises(PeerRefused, match="left for good") as refused:
        await blank.peers.join(nodes[0].id, blank.hello())
    assert refused.value.status == 403


async def test_a_node_that_is_blank_itself_lets_nobody_in(nodes: list[Node], blank: Node) -> None:
    nodes[0].table.learn(blank.hello())
    with pytest.raises(PeerRefused) as refused:
        await nodes[0].peers.join(blank.id, nodes[0].hello())
    assert refused.value.status == 409


async def test_a_revoked_node_is_cut_off_though_its_connection_is_open(nodes: list[Node]) -> None:
    await nodes[1].peers.call(nodes[0].id, "GET", "/peer/hello")
    nodes[0].revoked.add(nodes[1].id)
    with pytest.raises(PeerRefused, match="revoked"):
        await nodes[1].peers.call(nodes[0].id, "GET", "/peer/hello")


async def test_a_call_never_reaches_another_node_than_meant(nodes: list[Node]) -> None:
    """An address that has changed hands: the request must not even be sent."""
    caller, meant, other = nodes
    await meant.api.stop()
    caller.table.learn(msgspec.structs.replace(meant.hello(), peer_port=other.port))
    with pytest.raises(PeerUnreachable, match=f"node {other.id} answered where node {meant.id} was expected"):
        await caller.peers.notify_stopping(meant.id, 1)
    assert other.stopping_nodes == []


async def test_addresses_are_tried_in_order(nodes: list[Node]) -> None:
    caller, callee, _ = nodes
    caller.table.learn(callee.hello(), address="127.0.0.99")  # nobody listens there
    assert caller.table.places(callee.id)[0] == ("127.0.0.99", callee.port)
    assert await caller.peers.notify_stopping(callee.id, 1)
    assert callee.stopping_nodes == [caller.id]


async def test_an_unknown_node_is_unreachable(nodes: list[Node]) -> None:
    with pytest.raises(PeerUnreachable, match="no address is known"):
        await nodes[0].peers.call(NodeId("f" * 32), "GET", "/peer/hello")


async def test_large_bodies_of_small_calls_are_refused(nodes: list[Node]) -> None:
    with pytest.raises((PeerRefused, PeerUnreachable)):
        await nodes[0].peers.post(nodes[1].id, "/peer/join", b"x" * 200_000)
    assert nodes[1].joined == []


@pytest.mark.parametrize(
    "damage", [{"addresses": ("::1",)}, {"addresses": ()}, {"addresses": ("no address",)}, {"peer_port": 0}]
)
def test_a_member_that_nobody_can_dial_does_not_stop_those_who_read_of_it(damage: dict[str, object]) -> None:
    """The log lets in what a peer must not be; all nodes read it, and none may fail of it."""
    good = Member(NodeId("b" * 32), "good", ("10.0.0.1",), 7443, 7444, 8080, 1, "0.1.0", 0.0)
    bad = msgspec.structs.replace(good, id=NodeId("c" * 32), **damage)
    table = PeerTable(NodeId("a" * 32))
    table.follow(ClusterState(cluster_id=CLUSTER, members=Map({good.id: good, bad.id: bad})), "0" * 16)
    assert [peer.id for peer in table.peers()] == [good.id]


# ---------------------------------------------------------------- blobs
async def test_a_blob_goes_there_and_back(nodes: list[Node]) -> None:
    first, second, third = nodes
    digest = await first.keep(BIG)
    await first.transfer.put(second.id, digest)
    assert await second.blobs.verify(digest)
    await first.transfer.put(second.id, digest)  # again: nothing to do
    await third.transfer.fetch(digest, [second.id])
    assert third.blobs.path(digest).read_bytes() == BIG


async def test_an_empty_blob_too(nodes: list[Node]) -> None:
    digest = await nodes[0].keep(b"")
    await nodes[0].transfer.put(nodes[1].id, digest)
    await nodes[2].transfer.fetch(digest, [nodes[1].id])
    assert nodes[2].blobs.size(digest) == 0


async def test_bytes_under_a_wrong_digest_are_refused(nodes: list[Node]) -> None:
    wrong = Digest(hashlib.sha256(b"something else").hexdigest())
    with pytest.raises(PeerRefused) as refused:
        await nodes[0].peers.call(nodes[1].id, "PUT", f"/peer/blobs/{wrong}", b"not that")
    assert refused.value.status == 422
    assert nodes[1].blobs.digests() == frozenset()


@pytest.mark.parametrize("text", ["../../key.pem", "0" * 63, "G" * 64, "A" * 64])
async def test_a_name_that_is_no_digest_is_refused(nodes: list[Node], text: str) -> None:
    with pytest.raises(PeerRefused) as refused:
        await nodes[0].peers.call(nodes[1].id, "GET", f"/peer/blobs/{text}")
    assert refused.value.status in (400, 404)


async def test_a_broken_transfer_is_taken_up_where_it_stopped(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    giver, taker, _ = nodes
    digest = await giver.keep(BIG)
    async with taker.blobs.begin(name=digest) as writer:
        await writer.write(BIG[:1_000_000])
    came = 0
    write = BlobWriter.write

    async def counting(self: BlobWriter, chunk: bytes) -> None:
        nonlocal came
        came += len(chunk)
        await write(self, chunk)

    monkeypatch.setattr(BlobWriter, "write", counting)
    await taker.transfer.fetch(digest, [giver.id])
    assert taker.blobs.path(digest).read_bytes() == BIG
    assert came == len(BIG) - 1_000_000


@pytest.mark.parametrize(
    ("wanted", "status", "length", "described"),
    [
        (None, 200, 10, None),
        ("bytes=4-", 206, 6, "bytes 4-9/10"),
        ("bytes=0-", 200, 10, None),
        ("bytes=10-", 416, 0, "bytes */10"),
        ("bytes=2-5", 200, 10, None),  # forms that no peer of ours uses get the whole
        ("nonsense", 200, 10, None),
    ],
)
async def test_ranges(nodes: list[Node], wanted: str | None, status: int, length: int, described: str | None) -> None:
    digest = await nodes[0].keep(b"0123456789")
    headers = {"Range": wanted} if wanted else {}
    async with nodes[1].peers.request(nodes[0].id, "GET", f"/peer/blobs/{digest}", headers=headers) as response:
        assert (response.status, response.content_length) == (status, length)
        assert response.headers.get("Content-Range") == described
        assert await response.read() == b"0123456789"[10 - length :]


async def test_a_whole_partial_file_only_needs_its_check(nodes: list[Node]) -> None:
    digest = await nodes[0].keep(BIG)
    async with nodes[1].blobs.begin(name=digest) as writer:
        await writer.write(BIG)
    await nodes[1].transfer.fetch(digest, [nodes[0].id])
    assert await nodes[1].blobs.verify(digest)


@pytest.mark.parametrize("damage", [BIG[:-1] + b"?", BIG[:-1], b"", BIG + b"!", None])
async def test_a_corrupt_copy_is_passed_over_reported_and_removed(nodes: list[Node], damage: bytes | None) -> None:
    taker, bad, good = nodes
    digest = await bad.keep(BIG)
    await good.keep(BIG)
    if damage is None:
        bad.blobs.path(digest).unlink()
    else:
        bad.blobs.path(digest).write_bytes(damage)
    await taker.transfer.fetch(digest, [bad.id, good.id])
    assert taker.blobs.path(digest).read_bytes() == BIG
    assert bad.repaired == [digest]
    assert not bad.blobs.has(digest)
    assert good.repaired == []


async def test_a_dead_holder_is_passed_over(nodes: list[Node]) -> None:
    taker, dead, good = nodes
    digest = await good.keep(BIG)
    await dead.stop()
    await taker.transfer.fetch(digest, [dead.id, good.id])
    assert taker.blobs.has(digest)


async def test_nobody_has_it(nodes: list[Node]) -> None:
    digest = Digest("0" * 64)
    with pytest.raises(NoHolder, match="404"):
        await nodes[0].transfer.fetch(digest, [nodes[1].id])
    with pytest.raises(NoHolder, match="no other node holds it"):
        await nodes[0].transfer.fetch(digest, [nodes[0].id])


async def test_many_who_want_the_same_blob_share_one_transfer(nodes: list[Node]) -> None:
    digest = await nodes[0].keep(BIG)
    waits = [asyncio.create_task(nodes[1].transfer.fetch(digest, [nodes[0].id])) for _ in range(5)]
    await asyncio.sleep(0)
    waits[0].cancel()  # the first, who started it, goes away
    results = await asyncio.gather(*waits, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [None] * 4
    assert await nodes[1].blobs.verify(digest)


async def test_no_room_is_told_to_the_sender(nodes: list[Node]) -> None:
    digest = await nodes[0].keep(BIG)
    nodes[1].blobs.room.limits = Limits(reserve=1 << 62)
    with pytest.raises(PeerRefused) as refused:
        await nodes[0].transfer.put(nodes[1].id, digest)
    assert refused.value.status == 507
    assert nodes[1].blobs.digests() == frozenset()


async def test_a_receiver_without_room_hangs_up_and_the_holder_minds_it_not(
    nodes: list[Node], caplog: pytest.LogCaptureFixture
) -> None:
    here, there = nodes[:2]
    digest = await there.keep(os.urandom(32 * 1024 * 1024))
    here.blobs.room.limits = Limits(reserve=1 << 62)
    with pytest.raises(DiskFull):
        await here.transfer.fetch(digest, [there.id])
    assert await here.transfer.holds(there.id, digest)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_full_node_takes_what_it_needs_and_nothing_that_it_would_only_keep(nodes: list[Node]) -> None:
    here, there = nodes[:2]
    digest = await there.keep(BIG)
    here.blobs.room.limits = Limits(quota=100)
    with pytest.raises(DiskFull):
        await here.transfer.fetch(digest, [there.id], Pace(0.0, lambda: 0.0))
    assert not here.blobs.has(digest)
    await here.transfer.fetch(digest, [there.id])
    assert await here.blobs.verify(digest)


async def test_who_needs_a_blob_does_not_fail_with_a_transfer_that_had_no_room_to_keep_it(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = nodes[:2]
    digest = await there.keep(BIG)
    here.blobs.room.limits = Limits(quota=100)
    needing: list[asyncio.Task[None]] = []

    def refused(_: int) -> None:
        needing.append(asyncio.create_task(here.transfer.fetch(digest, [there.id])))

    monkeypatch.setattr(here.blobs.room, "note_refusal", refused)
    with pytest.raises(DiskFull):
        await here.transfer.fetch(digest, [there.id], Pace(0.0, lambda: 0.0))
    await asyncio.gather(*needing)
    assert len(needing) == 1
    assert await here.blobs.verify(digest)


class Gap:
    """A pace that stops at a certain number of bytes until it is let on."""

    def __init__(self, at: int) -> None:
        self._left, self.reached, self.go_on = at, asyncio.Event(), asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.reached.set()
        await self.go_on.wait()


async def test_a_holder_that_dies_in_the_middle_is_followed_by_another_at_that_offset(
    nodes: list[Node], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60 MB, and the holder's port closes after some of them: the other holder gives the rest, not the whole."""
    first, second, taker = nodes
    content = os.urandom(60_000_000)
    digest = await first.keep(content)
    await second.keep(content)
    came: list[int] = []
    write = BlobWriter.write

    async def counting(self: BlobWriter, chunk: bytes) -> None:
        came.append(len(chunk))
        await write(self, chunk)

    monkeypatch.setattr(BlobWriter, "write", counting)
    gap = Gap(0)
    # A clock that stands still: after the burst every piece would wait, so the transfer stops at its first ones.
    pace = Pace(40_000_000.0, lambda: 0.0, gap.sleep)
    fetching = asyncio.create_task(taker.transfer.fetch(digest, [first.id, second.id], pace))
    await gap.reached.wait()
    before = sum(came)
    assert 0 < before < len(content)
    await clock.run(first.api.stop())  # which waits for what is under way, in vain
    gap.go_on.set()
    await asyncio.wait_for(fetching, 30)
    assert taker.blobs.path(digest).read_bytes() == content
    assert sum(came) == len(content)  # not a byte twice


async def test_who_is_in_a_hurry_lifts_the_pace_of_a_transfer_under_way(nodes: list[Node]) -> None:
    giver, taker, _ = nodes
    digest = await giver.keep(BIG)
    gap = Gap(0)
    pace = Pace(1.0, lambda: 0.0, gap.sleep)
    slow = asyncio.create_task(taker.transfer.fetch(digest, [giver.id], pace))
    await gap.reached.wait()
    gap.go_on.set()
    gap.reached.clear()
    await taker.transfer.fetch(digest, [giver.id])
    await slow
    assert taker.blobs.path(digest).read_bytes() == BIG
