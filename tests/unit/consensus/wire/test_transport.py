"""The transport against strangers, garbage and silence: real sockets, real TLS."""

import asyncio
import logging
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from consensus.ports import PeerAddress
from consensus.state import NodeId
from consensus.wire.acceptor import HandshakeLimits
from consensus.wire.frames import FrameCodec, HigherTerm, Message, Propose
from consensus.wire.transport import IDLE_SECONDS, SWEEP_SECONDS, MtlsTransport, TransportEvents
from node.identity.pki import Identity, NodeKey
from tests.support.clock import Clock
from tests.unit.consensus.fabric import AUTHORITY, CLUSTER, STRANGERS, eventually, identity


class Peer:
    """One transport and what it reported."""

    def __init__(
        self,
        mine: Identity,
        cluster: str = CLUSTER,
        limits: HandshakeLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = mine.id
        self.up: set[NodeId] = set()
        self.ups = self.flaps = 0
        self.later = 0.0
        """Seconds by which its wall clock is ahead."""
        self.received: list[tuple[NodeId, Message]] = []
        self.crashes: list[BaseException] = []
        events = TransportEvents(self._on_up, self._on_down, self._on_message, self.crashes.append)
        self.transport = MtlsTransport(
            mine.id,
            cluster,
            mine.server_context(),
            mine.client_context(),
            mine.identify,
            events,
            limits or HandshakeLimits(),
            clock=clock,
            wall=lambda: time.time() + self.later,
        )
        self.port = 0

    def _on_up(self, peer: NodeId) -> None:
        self.up.add(peer)
        self.ups += 1

    def _on_down(self, peer: NodeId) -> None:
        self.up.discard(peer)
        self.flaps += 1

    def _on_message(self, peer: NodeId, message: Message) -> None:
        self.received.append((peer, message))

    def say(self, to: NodeId, message: Message) -> bool:
        sent = self.transport.send(to, message)
        self.transport.flush()
        return sent

    @property
    def address(self) -> PeerAddress:
        return PeerAddress(("127.0.0.1",), self.port)


@asynccontextmanager
async def started(*peers: Peer) -> AsyncIterator[None]:
    for peer in peers:
        peer.port = await peer.transport.start("127.0.0.1", 0)
    try:
        yield
    finally:
        for peer in peers:
            await peer.transport.stop()
    assert [crash for peer in peers for crash in peer.crashes] == []


def introduce(*peers: Peer) -> None:
    for peer in peers:
        peer.transport.set_peers({other.id: other.address for other in peers})


def by_id(*peers: Peer) -> list[Peer]:
    """The last one dials."""
    return sorted(peers, key=lambda peer: peer.id)


def credentials(folder: Path, key: NodeKey, spiffe_id: str, lifetime: timedelta) -> tuple[Path, Path]:
    """Certificate and key files for a leaf of our CA that says whatever the test wants."""
    names = [x509.UniformResourceIdentifier(spiffe_id)]
    leaf = AUTHORITY.issue(key.private.public_key(), "x", names, lifetime)
    chain, private = folder / "leaf.pem", folder / "leaf.key"
    chain.write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return chain, private


def bare_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def first_bytes(port: int, context: ssl.SSLContext, send: bytes = b"") -> bytes:
    """What a server says to a client: empty when it closes the connection."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(send)
        said = await reader.read(100)
        writer.transport.abort()
    except (OSError, ssl.SSLError):
        return b""
    return said


async def test_two_peers_talk_whichever_side_dials() -> None:
    a, b = Peer(identity()), Peer(identity())
    async with started(a, b):
        introduce(a, b)
        await eventually("the connection", lambda: a.up == {b.id} and b.up == {a.id})
        assert a.say(b.id, HigherTerm(1))
        assert b.say(a.id, HigherTerm(2))
        await eventually("both messages", lambda: a.received and b.received)
        assert a.received == [(b.id, HigherTerm(2))]
        assert not a.transport.send("nobody", HigherTerm(1))


async def test_strangers_are_turned_away_before_they_are_read(tmp_path: Path) -> None:
    node, known = Peer(identity()), identity()
    hello = FrameCodec(CLUSTER).encode(HigherTerm(99))
    async with started(node):
        node.transport.set_peers({known.id: PeerAddress((), 1)})
        assert await first_bytes(node.port, bare_context(), hello) == b"", "no certificate"
        assert await first_bytes(node.port, identity(STRANGERS).client_context(), hello) == b"", "another CA"
        assert await first_bytes(node.port, identity().client_context(), hello) == b"", "not in the peer table"
        expired, impostor = bare_context(), bare_context()
        key = NodeKey.generate()
        expired.load_cert_chain(*credentials(tmp_path, key, AUTHORITY.spiffe_id(key.id), timedelta(minutes=-1)))
        assert await first_bytes(node.port, expired, hello) == b"", "expired"
        impostor.load_cert_chain(*credentials(tmp_path, key, AUTHORITY.spiffe_id(known.id), timedelta(hours=1)))
        assert await first_bytes(node.port, impostor, hello) == b"", "another node's id"
        assert await first_bytes(node.port, known.client_context()) != b"", "the known peer gets its hello"
        assert node.received == []


async def test_a_dialler_refuses_a_server_that_is_not_whom_it_dialled() -> None:
    a, b, other = by_id(*(Peer(identity()) for _ in range(3)))
    async with started(a, b, other):
        # The highest id dials; it is sent to the wrong door, of a node that it knows too.
        other.transport.set_peers({a.id: b.address, b.id: PeerAddress((), 1)})
        for peer in (a, b):
            peer.transport.set_peers({other.id: other.address})
        await eventually("the refusal", lambda: other.transport.refused > 0)
        assert other.up == set()


async def test_a_peer_of_another_cluster_never_counts_as_connected(caplog: pytest.LogCaptureFixture) -> None:
    a, b = Peer(identity()), Peer(identity(), cluster="another")
    async with started(a, b):
        introduce(a, b)
        # Both see it at the first frame, or the end of the other's connection; then it is dialled again.
        await eventually("several attempts", lambda: caplog.text.count("raft.bad_frame") >= 3)
    assert (a.ups, b.ups) == (0, 0)


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", struct.pack(">I", 2**31), b"\0" * 64])
async def test_garbage_closes_the_connection_and_nothing_else(garbage: bytes) -> None:
    node, talker, honest = Peer(identity()), identity(), Peer(identity())
    async with started(node, honest):
        introduce(node, honest)
        node.transport.set_peers({honest.id: honest.address, talker.id: PeerAddress((), 1)})
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=talker.client_context())
        writer.write(garbage)
        while await reader.read(100):
            pass
        writer.transport.abort()
        await eventually("the honest peer", lambda: node.up == {honest.id})


async def test_who_leaves_the_peer_table_is_disconnected_at_once_and_does_not_get_back() -> None:
    low, high = by_id(Peer(identity()), Peer(identity()))
    async with started(low, high):
        introduce(low, high)
        await eventually("the connection", lambda: low.up and high.up)
        low.transport.set_peers({})
        assert low.up == set()
        await eventually("its attempts to come back to be refused", lambda: low.transport.refused >= 2)
        assert high.up == set()
    assert (low.ups, high.ups) == (1, 1)


async def test_whom_the_peer_table_does_not_name_any_more_is_not_dialled() -> None:
    low, high = by_id(Peer(identity()), Peer(identity()))
    async with started(low, high):
        introduce(low, high)
        await eventually("the connection", lambda: low.up and high.up)
        high.transport.set_peers({})
        assert high.up == set()
        assert high.transport._dialers == {}
        await eventually("the other side to notice", lambda: not low.up)


async def test_a_disconnected_peer_that_is_still_known_comes_back() -> None:
    a, b = Peer(identity()), Peer(identity())
    async with started(a, b):
        introduce(a, b)
        await eventually("the connection", lambda: a.up and b.up)
        a.transport.disconnect(b.id)
        assert a.flaps == 1
        await eventually("the new connection", lambda: a.up and b.up)


async def test_new_addresses_are_tried_in_order_and_at_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "consensus.wire.dialer")
    clock.hold()  # so nothing happens because a pause is over
    low, high = by_id(Peer(identity()), Peer(identity()))
    async with started(low, high):
        low.transport.set_peers({high.id: high.address})
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            high.transport.set_peers({low.id: PeerAddress(("127.0.0.1",), closed.getsockname()[1])})
            await eventually("the first attempt to fail", lambda: "address=127.0.0.1" in caplog.text)
            high.transport.set_peers({low.id: PeerAddress(("127.0.0.2", "127.0.0.1"), low.port)})
            await eventually("the second address", lambda: low.up and high.up)
    assert "address=127.0.0.2" in caplog.text, "the first one first"


async def test_a_silent_connection_is_dropped(clock: Clock) -> None:
    """A peer that was stopped by SIGSTOP keeps its sockets open and says nothing."""
    clock.hold()
    node, silent = Peer(identity(), clock=clock), identity()
    async with started(node):
        node.transport.set_peers({silent.id: PeerAddress((), 1)})
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=silent.client_context())
        writer.write(FrameCodec(CLUSTER).encode(HigherTerm(1)))
        await eventually("the peer", lambda: node.up == {silent.id})
        await clock.advance(IDLE_SECONDS - 0.1)
        assert node.up == {silent.id}
        writer.write(FrameCodec(CLUSTER).encode(HigherTerm(2)))
        await eventually("a sign of life", lambda: (silent.id, HigherTerm(2)) in node.received)
        await clock.advance(IDLE_SECONDS - 0.1)
        assert node.up == {silent.id}, "any byte counts"
        await clock.advance(0.2 + SWEEP_SECONDS)
        assert node.up == set()
        while await reader.read(100):
            pass
        writer.transport.abort()


async def test_beacons_go_to_every_peer_each_second_and_tell_their_age(clock: Clock) -> None:
    clock.hold()
    a, b = Peer(identity(), clock=clock), Peer(identity(), clock=clock)
    async with started(a, b):
        introduce(a, b)
        await eventually("the connection", lambda: a.up and b.up)
        for payload in (b"one", b"two"):
            a.transport.set_beacon(payload)
            await clock.advance(1.0)
            await eventually(f"{payload!r}", lambda: b.transport.beacons()[a.id].payload == payload)  # noqa: B023
        assert b.transport.beacons()[a.id].age == 0.0
        await clock.advance(0.75)
        assert b.transport.beacons()[a.id].age == pytest.approx(0.75)


async def test_a_connection_ends_with_the_certificate_of_its_peer(tmp_path: Path, clock: Clock) -> None:
    node, key = Peer(identity()), NodeKey.generate()
    context = bare_context()
    context.load_cert_chain(*credentials(tmp_path, key, AUTHORITY.spiffe_id(key.id), timedelta(hours=1)))
    async with started(node):
        node.transport.set_peers({key.id: PeerAddress((), 1)})
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=context)
        writer.write(FrameCodec(CLUSTER).encode(HigherTerm(1)))
        await eventually("the peer", lambda: node.up == {key.id})
        await clock.advance(2 * SWEEP_SECONDS)
        assert node.up == {key.id}
        node.later = 3601.0
        await clock.advance(SWEEP_SECONDS)
        assert node.up == set()
        while await reader.read(100):
            pass
        writer.transport.abort()


async def test_idle_strangers_cannot_keep_peers_out() -> None:
    limits = HandshakeLimits(seconds=3600.0, at_once=4, per_address=2)
    low, high = by_id(Peer(identity(), limits=limits), Peer(identity(), limits=limits))
    async with started(low, high):
        strangers = [await asyncio.open_connection("127.0.0.1", low.port) for _ in range(10)]

        def ended(stranger: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
            return stranger[0].at_eof() or stranger[0].exception() is not None

        # Long before the handshake's own deadline: beyond two, an address is turned away.
        await eventually("eight to be closed", lambda: sum(map(ended, strangers)) == 8)
        for _, writer in strangers:
            writer.transport.abort()
        introduce(low, high)
        await eventually("the peer", lambda: low.up and high.up)


async def test_a_peer_that_reads_nothing_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consensus.wire.link.MAX_QUEUED", 1024 * 1024)
    node, deaf = Peer(identity()), identity()
    async with started(node):
        node.transport.set_peers({deaf.id: PeerAddress((), 1)})
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port, ssl=deaf.client_context())
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(FrameCodec(CLUSTER).encode(HigherTerm(1)))
        await eventually("the peer", lambda: node.up == {deaf.id})
        for _ in range(200):
            node.say(deaf.id, Propose(b"\0" * 500_000))
            await asyncio.sleep(0)
        assert node.transport.backlog(deaf.id) < 3 * 1024 * 1024
        await eventually("its end", lambda: node.up == set())
        writer.transport.abort()
