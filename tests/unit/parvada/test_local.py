"""The wire of the agent's socket: frames survive any cut of the stream, and a child hears why a call failed."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web
from hypothesis import given, strategies as st

from parvada.local import (
    BLOBS,
    LOG,
    STATS,
    VIEW,
    AdoptRequest,
    EntryFrame,
    LocalBlob,
    Proposed,
    StateFrame,
    StoredBlob,
    WireError,
    blob_path,
    frame,
    log_frame,
    read_frame,
    read_log_frame,
)
from parvada.local_calls import AgentAway, AgentRefused, AgentSocket
from parvada.refusals import problem

MOST = 1000
bodies = st.lists(st.binary(min_size=1, max_size=50), max_size=5)


async def read_all(data: bytes) -> list[bytes]:
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    found = []
    while (body := await read_frame(reader, MOST)) is not None:
        found.append(body)
    return found


@given(bodies)
def test_frames_come_out_as_they_went_in(bodies: list[bytes]) -> None:
    assert asyncio.run(read_all(b"".join(map(frame, bodies)))) == bodies


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_stream_that_ends_within_a_frame_is_no_end(body: bytes, data: st.DataObject) -> None:
    whole = frame(body)
    cut = data.draw(st.integers(1, len(whole) - 1))
    with pytest.raises(WireError, match="within a frame"):
        asyncio.run(read_all(frame(b"before") + whole[:cut]))


@pytest.mark.parametrize("length", [0, MOST + 1, 2**32 - 1])
def test_a_frame_of_an_impossible_size_is_not_waited_for(length: int) -> None:
    with pytest.raises(WireError, match=f"a frame of {length} bytes"):
        asyncio.run(read_all(length.to_bytes(4, "big")))


@given(
    st.one_of(st.builds(StateFrame, st.binary()), st.builds(EntryFrame, st.integers(0, 2**63), st.binary(min_size=1)))
)
def test_parts_of_the_log_survive_the_way(item: StateFrame | EntryFrame) -> None:
    assert read_log_frame(log_frame(item)[4:]) == item


@pytest.mark.parametrize("body", [b"", b"\x02rest", b"\x01short"])
def test_a_part_of_no_known_kind_is_refused(body: bytes) -> None:
    with pytest.raises(WireError):
        read_log_frame(body)


def test_what_a_command_brought_is_read_from_its_own_json() -> None:
    answer = msgspec.json.encode(Proposed(7, msgspec.Raw(b'{"version":3,"moved":true,"alias":null}')))
    assert answer == b'{"index":7,"value":{"version":3,"moved":true,"alias":null}}'
    assert msgspec.json.decode(answer, type=Proposed).values() == {"version": 3, "moved": True, "alias": None}


# ---------------------------------------------------------------- a child's end
async def _blob(request: web.Request) -> web.Response:
    match request.match_info["digest"]:
        case "here":
            return web.Response(body=msgspec.json.encode(LocalBlob("/b/here", 3)))
        case "odd":
            return web.Response(body=b"[]")
        case "bare":
            raise web.HTTPNotImplemented
    return problem(507, "disk_full", "no room")


async def _adopt(request: web.Request) -> web.Response:
    asked = msgspec.json.decode(await request.read(), type=AdoptRequest)
    return web.Response(body=msgspec.json.encode(StoredBlob(f"of {asked.path}", 3, ("a", "b"))))


async def _views(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(frame(b"one") + frame(b"two")[:2])
    await asyncio.sleep(0)
    await response.write(frame(b"two")[2:])
    return response


async def _breaks_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(frame(b"one") + frame(b"two")[:-1])
    return response


async def _hangs(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
async def agent() -> AsyncIterator[AgentSocket]:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path may be too long for a socket
        app = web.Application()
        app.router.add_get(blob_path("{digest}"), _blob)
        app.router.add_post(BLOBS, _adopt)
        app.router.add_get(VIEW, _views)
        app.router.add_get(LOG, _breaks_off)
        app.router.add_post(STATS, _hangs)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.UnixSite(runner, f"{folder}/s").start()
        socket = AgentSocket(f"{folder}/s")
        try:
            yield socket
        finally:
            await socket.close()
            await runner.cleanup()


async def test_answers_are_what_was_asked_for(agent: AgentSocket) -> None:
    assert await agent.blob("here", 20) == LocalBlob("/b/here", 3)
    assert await agent.store(Path("/tmp/m"), 20) == StoredBlob("of /tmp/m", 3, ("a", "b"))  # noqa: S108  only its name
    assert [body async for body in agent.frames(VIEW, MOST)] == [b"one", b"two"]


async def test_a_refusal_says_why(agent: AgentSocket) -> None:
    with pytest.raises(AgentRefused) as refused:
        await agent.blob("full", 20)
    assert (refused.value.status, refused.value.code, refused.value.reason) == (507, "disk_full", "no room")
    with pytest.raises(AgentRefused) as refused:
        await agent.blob("bare", 20)
    assert refused.value.status == 501
    with pytest.raises(AgentRefused, match="404"):
        await anext(agent.frames("/local/nothing", MOST))


async def test_an_agent_that_is_away_breaks_off_or_talks_nonsense(agent: AgentSocket) -> None:
    with pytest.raises(AgentAway, match="no LocalBlob"):
        await agent.blob("odd", 20)
    with pytest.raises(AgentAway, match="TimeoutError"):
        await agent.call("POST", STATS, seconds=0.01)
    broken = agent.frames(LOG, MOST)
    assert await anext(broken) == b"one"
    with pytest.raises(AgentAway):
        await anext(broken)
    with pytest.raises(AgentAway, match="a frame of 3 bytes"):
        await anext(agent.frames(VIEW, 2))
    nobody = AgentSocket("/nowhere/agent.sock")
    try:
        with pytest.raises(AgentAway):
            await nobody.call("GET", VIEW, seconds=20)
    finally:
        await nobody.close()
