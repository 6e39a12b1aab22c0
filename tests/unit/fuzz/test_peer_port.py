"""The peer port under hostile bytes over real mutual TLS: an answer or an end, in bounded time and memory."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, strategies as st

from discovery.peer import Peer
from node.peering import port as peer_port
from node.peering.port import IDLE_SECONDS
from node.peering.server import LINGER_SECONDS, STALL_SECONDS
from tests.support.clock import Clock
from tests.unit.fuzz import examples
from tests.unit.node.fabric import Node, fabric

HELLO = b"GET /peer/hello HTTP/1.1\r\nHost: x\r\n\r\n"
JOIN = b"POST /peer/join HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
FLOOD = 64 * 1024 * 1024


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[Node]]:
    async with fabric(tmp_path, 2) as made:
        yield made


@contextlib.asynccontextmanager
async def connected(caller: Node, callee: Node) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    context = caller.identity.client_context()
    reader, writer = await asyncio.open_connection("127.0.0.1", callee.port, ssl=context)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def drain(reader: asyncio.StreamReader) -> bytes:
    """All that comes until the other side ends the connection."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(65536):
            answer = (answer + chunk)[-100_000:]
    return answer


async def taken(callee: Node, clock: Clock) -> None:
    """Its server has the connection: the handshake is behind it."""
    await clock.outside("the connection", lambda: callee.api._runner.server.connections)  # type: ignore[union-attr]


async def is_well(caller: Node, callee: Node) -> None:
    async with connected(caller, callee) as (reader, writer):
        writer.write(HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        answer = await drain(reader)
    assert msgspec.json.decode(answer.partition(b"\r\n\r\n")[2], type=Peer) == callee.hello()


# ---------------------------------------------------------------- bad requests
BAD = {
    "no HTTP": b"\x16\x03\x01\x00\xff" + b"\0" * 200 + b"\r\n\r\n",
    "a bad request line": b"GET\r\n\r\n",
    "a bad version": b"GET / HTTP/9.9\r\n\r\n",
    "a long path": b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    "a long header": b"GET /peer/hello HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    "headers without end": b"GET /peer/hello HTTP/1.1\r\n" + b"X-A: b\r\n" * 50_000,
    "a bad header": b"GET /peer/hello HTTP/1.1\r\n: x\r\n\r\n",
    "a header with a zero": b"GET /peer/hello HTTP/1.1\r\nX: a\0b\r\n\r\n",
    "two lengths": JOIN + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a length and chunks": JOIN + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a negative length": JOIN + b"Content-Length: -1\r\n\r\n",
    "a bad chunk": JOIN + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk size without end": JOIN + b"Transfer-Encoding: chunked\r\n\r\n" + b"0" * 100_000,
}


@pytest.mark.parametrize("what", BAD)
async def test_bad_requests_are_refused_and_the_connection_ends(nodes: list[Node], clock: Clock, what: str) -> None:
    """At once, or when it stalls."""
    callee, caller = nodes
    async with connected(caller, callee) as (reader, writer):
        await taken(callee, clock)
        writer.write(BAD[what])
        drained = asyncio.create_task(drain(reader))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(drained), 0.1)
        await clock.advance(STALL_SECONDS)
        await clock.outside("the answer", lambda: drained.done() or callee.api._calls == 0)
        await clock.advance(LINGER_SECONDS)
        answer = await drained
        assert answer == b"" or answer.split()[1] in (b"400", b"408"), answer[:200]
    await is_well(caller, callee)
    assert callee.joined == []


@given(
    st.lists(
        st.sampled_from([HELLO, JOIN, CHUNKED, b"Content-Length: 5\r\n", b"\r\n", b"0\r\n\r\n"])
        | st.binary(max_size=60),
        max_size=10,
    )
)
@examples(25)
async def test_any_bytes_leave_the_node_well(tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]) -> None:
    async with fabric(tmp_path_factory.mktemp("any"), 2) as (callee, caller):
        async with connected(caller, callee) as (reader, writer):
            writer.write(b"".join(pieces))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(drain(reader), 0.05)
        await is_well(caller, callee)
        assert callee.joined == []


# ---------------------------------------------------------------- bounded memory
@pytest.mark.parametrize(
    "head",
    [
        JOIN + b"Transfer-Encoding: chunked\r\n\r\n",
        JOIN + b"Content-Length: %d\r\n\r\n" % FLOOD,
        b"GET /peer/hello HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_a_flood_of_body_is_not_kept(nodes: list[Node], clock: Clock, head: bytes) -> None:
    callee, caller = nodes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    piece = b"x" * 65536
    async with connected(caller, callee) as (reader, writer):
        writer.write(head)
        end = asyncio.create_task(drain(reader))
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < FLOOD and not end.done():
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if b"chunked" in head else piece)
                await writer.drain()
                sent += len(piece)
        writer.transport.abort()
        await end
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 24 * 1024, f"{grown} KB more after {sent} bytes"
    await is_well(caller, callee)
    assert callee.joined == []
    await clock.advance(LINGER_SECONDS)  # or the end of the node would wait for it


async def test_connections_beyond_the_bound_are_closed_and_those_before_go_on(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_port, "CONNECTIONS", 4)
    callee, caller = nodes
    async with contextlib.AsyncExitStack() as stack:
        kept = [await stack.enter_async_context(connected(caller, callee)) for _ in range(4)]
        reader, _ = await stack.enter_async_context(connected(caller, callee))
        assert await drain(reader) == b""
        for reader, writer in kept:
            writer.write(HELLO)
            assert b" 200 " in await reader.readline()


# ---------------------------------------------------------------- bounded time
@pytest.mark.parametrize(
    ("start", "drop"), [(b"", b""), (b"\r\n", b"\r\n"), (b"GET /peer/hel", b"x"), (HELLO[:-2], b"x")]
)
async def test_a_head_that_does_not_come_ends_the_connection(
    nodes: list[Node], clock: Clock, start: bytes, drop: bytes
) -> None:
    """In a slow trickle too: a drop each second does not begin the time anew."""
    callee, caller = nodes
    async with connected(caller, callee) as (reader, writer):
        await taken(callee, clock)
        clock.hold()
        writer.write(start)
        drained = asyncio.create_task(drain(reader))
        for _ in range(int(IDLE_SECONDS) - 1):
            await clock.advance(1.0)
            writer.write(drop)
        assert not drained.done()
        await clock.advance(2.0)
        assert await drained == b""


async def test_a_small_body_that_does_not_come_ends_the_call(nodes: list[Node], clock: Clock) -> None:
    callee, caller = nodes
    async with connected(caller, callee) as (reader, writer):
        writer.write(JOIN + b"Content-Length: 500\r\n\r\n{")
        await clock.outside("the call", lambda: callee.api._calls == 1)
        await clock.advance(STALL_SECONDS)
        assert b" 408 " in await reader.readline()
    await clock.outside("its end", lambda: callee.api._calls == 0)


async def test_strangers_that_never_shake_hands_are_closed(nodes: list[Node], clock: Clock) -> None:
    callee, caller = nodes
    assert peer_port.LIMITS.seconds <= 5.0
    clock.hold()
    count = peer_port.LIMITS.per_address + 8
    strangers = [await asyncio.open_connection("127.0.0.1", callee.port) for _ in range(count)]
    try:
        # Those beyond the bound at once, the others by the handshake's own deadline.
        await clock.outside("eight ends", lambda: sum(reader.at_eof() for reader, _ in strangers) == 8)
        await clock.advance(peer_port.LIMITS.seconds + 0.1)
        await clock.outside("all ends", lambda: all(reader.at_eof() or reader.exception() for reader, _ in strangers))
    finally:
        for _, writer in strangers:
            writer.transport.abort()
    await clock.outside("the room", lambda: not callee.api._port._acceptor._handshakes)  # type: ignore[union-attr]
    await is_well(caller, callee)
