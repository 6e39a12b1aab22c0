"""Uploads that cannot be used, break off, or come at a bad time: refused with a sentence, and nothing is left."""

import asyncio
import functools
import gzip
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from consensus.queries import referenced_digests
from node.blobs.room import Limits
from node.http import uploads
from tests.support.clock import Clock
from tests.unit.node.http.world import World, world
from tests.unit.node.wait import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

CSV = "x,y\n" + "1.5,a\n2.5,b\n" * 10

BAD: list[tuple[str, bytes | str, str, int, str, str]] = [
    ("binary", random.Random(1).randbytes(5000), "", 422, "", ""),
    ("prose", "this is no table at all\n", "", 422, "", ""),
    ("empty", b"", "", 422, "empty_file", "empty"),
    ("blank", b"\n\n\n", "", 422, "", ""),
    ("header-only", "x,y\n", "", 422, "header_only", "no rows"),
    ("ragged", "x,y\n1,a\n2,b,3\n4,a\n", "", 422, "", "line 3"),
    ("short-row", "x,y\n1,a\n2,b\n4\n", "", 422, "", "line 4"),
    ("duplicate", "x,y,x\n1,a,2\n2,b,3\n", "", 422, "", "'x'"),
    ("no-target", CSV, "?target=yy", 422, "target_missing", "'yy'"),
    ("constant", "x,y\n1,a\n2,a\n3,a\n", "", 422, "constant_target", "one value 'a'"),
    ("one-class-left", "x,y\n1,a\n2,\n3,a\n", "", 422, "constant_target", "one value 'a'"),
    ("constant-number", "x,y\n1,7\n2,7\n3,7\n", "?task=regression", 422, "constant_target", "one value 7"),
    ("no-values", "x,y\n1,\n2,\n", "", 422, "", "'y'"),
    ("labels-for-regression", CSV, "?task=regression", 422, "target_type", "regression"),
    ("one-column", "y\na\nb\n", "", 422, "not_a_table", "one column"),
    ("no-features", CSV, "?drop=x", 422, "no_features", "no column"),
    ("bad-parquet", b"PAR1" + b"\0" * 100, "", 422, "not_a_table", ""),
    ("cut-gzip", gzip.compress(CSV.encode(), mtime=0)[:-10], "", 422, "not_a_table", "gzip"),
    (
        "onion",
        functools.reduce(lambda body, _: gzip.compress(body, mtime=0), range(1200), CSV.encode()),
        "",
        422,
        "not_a_table",
        "more than twice",
    ),
    ("bad-jsonl", '{"x":1,"y":"a"}\n{"x":\n', "", 422, "not_a_table", "line 2"),
    ("task", CSV, "?task=clasification", 400, "unknown_task", ""),
    ("weight", CSV, "?weight=xx", 400, "unknown_weight", "did you mean 'x'"),
    ("group", CSV, "?group=z", 400, "unknown_group", "'z'"),
    ("drop", CSV, "?drop=z", 400, "unknown_drop", "'z'"),
    ("parameter", CSV, "?traget=y", 400, "unknown_parameter", "did you mean 'target'"),
    ("twice", CSV, "?target=y&target=x", 400, "invalid", "more than once"),
    ("format", CSV, "?format=cvs", 415, "unknown_format", "did you mean 'csv'"),
    ("large", b"x,y\n" + b"1,a\n" * 300_000, "", 413, "too_large", "1 MB"),
    ("bomb", gzip.compress(b"x,y\n" + b"1,a\n" * 300_000, mtime=0), "", 413, "too_large", "more than"),
]


@pytest.mark.parametrize(("name", "body", "query", "status", "code", "said"), BAD, ids=[row[0] for row in BAD])
async def test_what_cannot_be_used_is_refused_and_nothing_is_changed(
    api: World, name: str, body: bytes | str, query: str, status: int, code: str, said: str
) -> None:
    before = api.trace()
    answer = await api.upload(f"bad-{name}", body, query)
    found = answer.problem
    assert found == (status, code or found[1]), answer.raw
    assert said in answer.json["error"]
    assert api.trace() == before


@pytest.mark.parametrize(("row", "body"), [(3, "x,y\n1,a\n2,b,3\n4,a\n"), (4, "x,y\n1,a\n2,b\n4\n")])
async def test_a_ragged_row_is_named_by_its_number(api: World, row: int, body: str) -> None:
    assert (await api.upload("ragged", body)).json["details"]["row"] == row


@given(
    body=st.one_of(
        st.binary(max_size=200),
        st.text(alphabet='ab1.,;\t\n\r"{}[]:\ufeff é', max_size=80).map(lambda text: ("x,y\n" + text).encode()),
        st.builds(
            lambda head, tail: head + tail, st.sampled_from([b"PAR1", b"ARROW1\0\0", b"\x1f\x8b", b"[{"]), st.binary()
        ),
    ),
    kind=st.sampled_from(["", "?format=json", "?format=jsonl", "?format=parquet", "?format=arrow", "?format=tsv"]),
)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_no_file_is_our_error(api: World, body: bytes, kind: str) -> None:
    before = api.trace()
    answer = await api.upload("fuzz", body, kind)
    assert answer.status < 500, answer.raw
    if answer.status >= 400:
        assert answer.problem
        assert api.trace() == before


@pytest.mark.parametrize(
    ("body", "encoding", "problem"),
    [
        (CSV.encode(), "br", (415, "unsupported_encoding")),
        (CSV.encode(), "gzip", (422, "not_a_table")),
        (gzip.compress(CSV.encode(), mtime=0)[:-8], "gzip", (422, "not_a_table")),
    ],
)
async def test_an_encoding_that_does_not_hold_is_refused(
    api: World, body: bytes, encoding: str, problem: tuple[int, str]
) -> None:
    before = api.trace()
    answer = await api.upload("encoded", body, headers={"Content-Encoding": encoding})
    assert answer.problem == problem
    assert api.trace() == before


@pytest.mark.parametrize("name", ["-x", "a%20b", "a%2Fb", "%C3%A9t%C3%A9", "x" * 129])
async def test_names_that_are_no_names(api: World, name: str) -> None:
    before = api.trace()
    assert (await api.upload(name, CSV)).problem == (400, "invalid")
    assert api.trace() == before


async def test_a_stream_without_a_length_is_cut_off_at_the_limit(api: World) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        yield b"x,y\n"
        for _ in range(100):
            sent += 1
            yield b"1,a\n2,b\n" * 16_000
            await asyncio.sleep(0)

    before = api.trace()
    answer = await api.upload("endless", endless())
    assert answer.problem == (413, "too_large")
    assert api.trace() == before


HEAD = b"PUT /v1/datasets/broken HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer pvd_admin\r\n"
WHOLE = CSV.encode()
BROKEN = {
    "length": HEAD + b"Content-Length: 5000\r\n\r\n" + WHOLE,
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n" % (len(WHOLE), WHOLE),
}


@pytest.mark.parametrize("framing", sorted(BROKEN))
async def test_an_upload_that_breaks_off_leaves_nothing(api: World, framing: str) -> None:
    """What had come by then is a fine table of its own: only the framing tells that it is not all."""
    before = api.trace()
    _, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(BROKEN[framing])
    await writer.drain()
    await eventually(lambda: any(path.name == "upload" for path in api.tmp.rglob("*")))
    writer.close()
    await eventually(lambda: not any(api.tmp.iterdir()))
    assert api.trace() == before


async def test_a_stalled_upload_is_given_up(api: World, clock: Clock) -> None:
    before = api.trace()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(BROKEN["length"])
    await eventually(lambda: any(path.name == "upload" for path in api.tmp.rglob("*")))
    answering = asyncio.create_task(reader.read(20))
    await clock.advance(uploads.STALL_SECONDS / 2)
    assert not answering.done()
    answer = await clock.run(answering, step=1.0)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    await eventually(lambda: api.trace() == before)


async def test_too_many_uploads_at_once(api: World) -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x,y\n"
        await gate.wait()
        yield CSV.encode()[4:]

    waiting = [asyncio.create_task(api.upload(f"slow-{n}", slow())) for n in range(uploads.UPLOADS)]
    await eventually(lambda: len(list(api.tmp.iterdir())) == uploads.UPLOADS)
    refused = await api.upload("one-more", CSV)
    assert refused.problem == (429, "busy")
    assert refused.headers["Retry-After"]
    gate.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [201] * uploads.UPLOADS


async def test_nothing_is_acknowledged_that_is_on_one_disk_only(tmp_path: Path) -> None:
    async with world(tmp_path) as api:
        for other in api.flock.nodes[1:]:
            await other.stop()
        answer = await api.upload("lonely", CSV)
        assert answer.problem == (503, "not_durable")
        assert answer.headers["Retry-After"]
        assert not api.state.datasets
        assert referenced_digests(api.state) == frozenset()
        assert list(api.tmp.iterdir()) == []


async def test_a_full_disk_is_said(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def full(*_: object, seconds: float) -> object:
        raise OSError(28, "No space left on device")

    before = api.trace()
    monkeypatch.setattr(api.ports.workshop, "run", full)
    assert (await api.upload("full", CSV)).problem == (503, "disk_full")
    assert api.trace() == before


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.mark.parametrize("known", [True, False])
async def test_no_room_is_refused_by_name_and_leaves_nothing(api: World, known: bool) -> None:
    """Before a byte is kept where the size is known, else as soon as it shows; the node says that it is full."""
    before, room = api.trace(), api.flock.first.blobs.room
    room.limits = Limits(reserve=1 << 62)
    answer = await api.upload("full", CSV if known else _pieces(CSV.encode()))
    assert answer.problem == (503, "disk_full")
    assert answer.headers["Retry-After"]
    assert "node-0 has no room" in answer.json["error"]
    assert answer.json["details"] == {"node": "node-0", "need": len(CSV) if known else 0, "free": 0}
    assert api.trace() == before
    assert [alarm["code"] for alarm in (await api.get("/v1/cluster"))["alarms"]] == ["disk_full"]
    room.limits = Limits(reserve=0)
    assert (await api.upload(f"room-{known}", CSV + f"{known:d},c\n" * 2)).status == 201


@pytest.mark.parametrize("content", [CSV.encode(), gzip.compress(CSV.encode(), mtime=0)], ids=["plain", "gzipped"])
async def test_what_an_upload_becomes_keeps_to_the_quota(api: World, content: bytes) -> None:
    before, room = api.trace(), api.flock.first.blobs.room
    room.limits = Limits(quota=sum(map(api.flock.first.blobs.size, api.flock.first.blobs.digests())) + 10)
    assert (await api.upload("full", content)).problem == (503, "disk_full")
    assert api.trace() == before
    room.limits = Limits()


async def test_a_copy_goes_to_the_next_where_an_owner_is_full(api: World) -> None:
    """Each other node in turn: the upload succeeds, on two nodes, and never on the one without room."""
    for number, full in enumerate(api.flock.nodes[1:]):
        full.blobs.room.limits = Limits(reserve=1 << 62)
        answer = await api.upload(f"data-{number}", CSV + f"{number},c\n" * 3)
        assert answer.status == 201, answer.raw
        (holders,) = answer.json["holders"].values()
        assert len(holders) == 2
        assert full.id not in holders
        full.blobs.room.limits = Limits()
