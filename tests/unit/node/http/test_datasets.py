"""Datasets over HTTP: uploads in every form, durable before they are acknowledged; bad ones change nothing."""

import asyncio
import functools
import gzip
import io
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from consensus.queries import referenced_digests
from node.http import datasets
from tests.unit.node.http.facts import dataset, flowers, submit
from tests.unit.node.http.world import World, world
from tests.unit.node.wait import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


# ---------------------------------------------------------------- good ones
async def test_an_upload_is_a_version_on_two_disks(api: World) -> None:
    answer = await api.upload("roses", flowers(), "?target=kind&drop=colour&task=binary")
    assert answer.status == 201
    made = answer.json
    assert (made["name"], made["version"], made["rows"], made["parts"]) == ("roses", 1, 60, 1)
    assert (made["target"], made["task"], made["created_by"]) == ("kind", "binary", "admin")
    assert [(column["name"], column["type"]) for column in made["columns"]] == [
        ("length", "number"),
        ("width", "number"),
        ("kind", "category"),
    ]
    assert made["created_at"].endswith("Z")
    (part,) = made["holders"]
    assert len(made["holders"][part]) == 2
    assert api.flock.keepers(part) == set(made["holders"][part])
    assert int(answer.headers["x-parvada-index"]) == api.state.index
    assert answer.headers["x-parvada-node"] == api.flock.first.id
    assert list(api.tmp.iterdir()) == []
    assert await api.get("/v1/datasets/roses") == made
    assert await api.get("/v1/datasets/roses/versions/1") == made


async def test_the_same_content_is_no_new_version_and_other_content_is(api: World) -> None:
    first = await dataset(api, "again")
    same = await api.upload("again", flowers())
    assert (same.status, same.json["version"]) == (200, 1)
    other = await api.upload("again", flowers(seed=1))
    assert (other.status, other.json["version"], other.json["versions"]) == (201, 2, [1, 2])
    assert (await api.get("/v1/datasets/again"))["version"] == 2
    assert (await api.get("/v1/datasets/again/versions/1"))["digest"] == first["digest"]
    listed = (await api.get("/v1/datasets"))["datasets"]
    assert [(found["name"], found["version"]) for found in listed if found["name"] == "again"] == [("again", 2)]


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1.5, 2.5] * 10, "y": ["a", "b"] * 10}), sink)
    return sink.getvalue()


CSV = "x,y\n" + "1.5,a\n2.5,b\n" * 10


@pytest.mark.parametrize(
    ("body", "headers", "query"),
    [
        (CSV, {}, ""),
        (CSV, {"Content-Type": "text/csv"}, ""),
        (CSV.replace(",", "\t"), {"Content-Type": "text/tab-separated-values"}, ""),
        (CSV.replace(",", ";"), {}, "?format=csv"),
        (gzip.compress(CSV.encode()), {}, ""),
        (gzip.compress(CSV.encode()), {"Content-Encoding": "gzip", "Content-Type": "text/csv"}, ""),
        (_parquet(), {}, ""),
        (_parquet(), {"Content-Type": "application/vnd.apache.parquet"}, ""),
        ('{"x":1.5,"y":"a"}\n{"x":2.5,"y":"b"}\n' * 10, {"Content-Type": "application/x-ndjson"}, ""),
        ("[" + ",".join(['{"x":1.5,"y":"a"},{"x":2.5,"y":"b"}'] * 10) + "]", {"Content-Type": "application/json"}, ""),
    ],
    ids=["csv", "typed", "tsv", "semicolons", "gz", "encoded", "parquet", "typed-parquet", "jsonl", "json"],
)
async def test_every_format_gives_the_same_data(
    api: World, body: bytes | str, headers: dict[str, str], query: str, request: pytest.FixtureRequest
) -> None:
    name = "format-" + request.node.callspec.id
    answer = await api.upload(name, body, query, headers=headers)
    assert answer.status == 201, answer.raw
    assert (answer.json["rows"], answer.json["target"], answer.json["task"]) == (20, "y", "binary")
    assert [column["type"] for column in answer.json["columns"]] == ["number", "category"]
    content = await api.call("GET", f"/v1/datasets/{name}/content?format=csv")
    assert content.raw.decode().replace('"', "") == CSV
    assert content.headers["Content-Type"].startswith("text/csv")


async def test_preview_and_content_come_back_also_from_another_nodes_disk(api: World) -> None:
    made = await dataset(api, "shown")
    parts = list(made["holders"])  # type: ignore[call-overload]
    await api.flock.first.blobs.remove(parts[0])
    preview = await api.get("/v1/datasets/shown/preview?rows=3")
    assert preview["columns"] == ["length", "width", "colour", "kind"]
    assert [row["kind"] for row in preview["rows"]] == ["rose", "tulip", "rose"]
    content = await api.call("GET", "/v1/datasets/shown/versions/1/content")
    # Numbers are written as short as they are; texts are quoted.
    written = [[cell.strip('"') for cell in line.split(",")] for line in content.raw.decode().splitlines()[1:4]]
    assert written == [[str(row[name]) for name in preview["columns"]] for row in preview["rows"]]
    assert content.headers["x-parvada-node"] == api.flock.first.id
    assert list(api.tmp.iterdir()) == []


async def test_rows_without_a_target_are_dropped_and_counted(api: World) -> None:
    answer = await api.upload("gaps", "x,y\n1,a\n2,b\n3,\n4,a\n5,NaN\n6,b\n")
    assert (answer.status, answer.json["rows"], answer.json["dropped_rows"]) == (201, 4, 2)


async def test_dropped_columns_may_be_named_twice_or_with_commas(api: World) -> None:
    answer = await api.upload("drops", "a,b,c,x,y\n" + "1,2,3,4,p\n5,6,7,8,q\n" * 3, "?drop=a,b&drop=c")
    assert [column["name"] for column in answer.json["columns"]] == ["x", "y"]


async def test_a_deleted_dataset_is_gone_and_its_number_is_not_used_again(api: World) -> None:
    await dataset(api, "gone")
    answer = await api.call("DELETE", "/v1/datasets/gone")
    assert (answer.status, answer.json) == (200, {"name": "gone", "deleted": True})
    assert (await api.call("GET", "/v1/datasets/gone")).problem == (404, "unknown_dataset")
    assert (await api.upload("gone", flowers())).json["version"] == 2


async def test_a_dataset_in_use_stays(api: World) -> None:
    await dataset(api, "used")
    job = await submit(api, "used")
    refused = await api.call("DELETE", "/v1/datasets/used")
    assert refused.problem == (409, "in_use")
    assert job in refused.json["error"]
    await api.call("POST", f"/v1/jobs/{job}/cancel")
    assert (await api.call("DELETE", "/v1/datasets/used")).status == 200


# ---------------------------------------------------------------- bad ones
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
    ("cut-gzip", gzip.compress(CSV.encode())[:-10], "", 422, "not_a_table", "gzip"),
    (
        "onion",
        functools.reduce(lambda body, _: gzip.compress(body), range(1200), CSV.encode()),
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
    ("bomb", gzip.compress(b"x,y\n" + b"1,a\n" * 300_000), "", 413, "too_large", "more than"),
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
        (gzip.compress(CSV.encode())[:-8], "gzip", (422, "not_a_table")),
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


async def test_a_stalled_upload_is_given_up(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "STALL_SECONDS", 0.05)
    before = api.trace()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    writer.write(BROKEN["length"])
    answer = await asyncio.wait_for(reader.read(20), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    await eventually(lambda: api.trace() == before)


async def test_too_many_uploads_at_once(api: World) -> None:
    gate = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"x,y\n"
        await gate.wait()
        yield CSV.encode()[4:]

    waiting = [asyncio.create_task(api.upload(f"slow-{n}", slow())) for n in range(datasets.UPLOADS)]
    await eventually(lambda: len(list(api.tmp.iterdir())) == datasets.UPLOADS)
    refused = await api.upload("one-more", CSV)
    assert refused.problem == (429, "busy")
    assert refused.headers["Retry-After"]
    gate.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [201] * datasets.UPLOADS


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
    async def full(*_: object) -> object:
        raise OSError(28, "No space left on device")

    before = api.trace()
    monkeypatch.setattr(api.ports.workshop, "run", full)
    assert (await api.upload("full", CSV)).problem == (503, "disk_full")
    assert api.trace() == before


# ---------------------------------------------------------------- reading what is not there
@pytest.mark.parametrize(
    ("path", "problem", "said"),
    [
        ("/v1/datasets/sources", (404, "unknown_dataset"), "did you mean 'source'"),
        ("/v1/datasets/source/versions/2", (404, "unknown_version"), "'2'"),
        ("/v1/datasets/source/versions/0", (400, "invalid"), "from 1"),
        ("/v1/datasets/source/versions/x", (400, "invalid"), "'x'"),
        ("/v1/datasets/source/versions/" + "9" * 5000, (400, "invalid"), "from 1"),
        ("/v1/datasets/source/preview?rows=0", (400, "invalid"), "1 to 1000"),
        ("/v1/datasets/source/preview?row=5", (400, "unknown_parameter"), "did you mean 'rows'"),
        ("/v1/datasets/source/content?format=xlsx", (415, "unsupported_format"), "xlsx"),
        ("/v1/datasets/none/preview", (404, "unknown_dataset"), "none"),
    ],
)
async def test_reading_what_is_not_there(api: World, path: str, problem: tuple[int, str], said: str) -> None:
    if "source" not in api.state.datasets:
        await dataset(api, "source")
    before = api.trace()
    answer = await api.call("GET", path)
    assert answer.problem == problem
    assert said in answer.json["error"]
    assert api.trace() == before
