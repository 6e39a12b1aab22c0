"""Datasets over HTTP: uploads in every form, durable before they are acknowledged; shown, given back, deleted."""

import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.node.http.facts import dataset, flowers, submit
from tests.unit.node.http.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


# ---------------------------------------------------------------- uploads
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
    grouped = await api.upload("again", flowers(), "?group=colour")
    assert (grouped.status, grouped.json["version"], grouped.json["group"]) == (201, 2, "colour")
    other = await api.upload("again", flowers(seed=1))
    assert (other.status, other.json["version"], other.json["versions"]) == (201, 3, [1, 2, 3])
    assert (await api.get("/v1/datasets/again"))["version"] == 3
    assert (await api.get("/v1/datasets/again/versions/1"))["digest"] == first["digest"]
    listed = (await api.get("/v1/datasets"))["datasets"]
    assert [(found["name"], found["version"]) for found in listed if found["name"] == "again"] == [("again", 3)]


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


async def test_drop_is_repeated_and_a_name_may_have_commas(api: World) -> None:
    answer = await api.upload("drops", '"a,b",a,b,x,y\n' + "1,2,3,4,p\n5,6,7,8,q\n" * 3, "?drop=a,b&drop=a&drop=")
    assert [column["name"] for column in answer.json["columns"]] == ["b", "x", "y"]


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


async def test_what_the_uploader_knows_is_taken_and_what_is_guessed_is_noted(api: World) -> None:
    rows = "".join(f"{number % 7};NA;{number},5;{'pq'[number % 2]}\n" for number in range(20))
    guessed = (await api.upload("guessed", "zip;c;v;y\n" + rows)).json
    assert {(note["code"], note.get("column")) for note in guessed["notes"]} == {
        ("missing_tokens", "c"),
        ("decimal_comma", None),
    }
    assert (await api.get("/v1/datasets/guessed"))["notes"] == guessed["notes"]
    told = await api.upload(
        "told", "zip;c;v;y\n" + rows, "?types=zip:category&types=c:category&missing=&decimal=,&header=first"
    )
    assert {column["name"]: column["type"] for column in told.json["columns"]} == {
        "zip": "category",
        "c": "category",
        "v": "number",
        "y": "category",
    }
    assert told.json["notes"] == []
    for query, code in (
        ("types=zap:category", "unknown_types"),
        ("types=zip", "invalid_types"),
        ("decimal=x", "invalid_decimal"),
        ("separator=ab", "invalid_separator"),
        ("encoding=ab", "invalid_encoding"),
        ("header=ab", "invalid_header"),
    ):
        before = api.trace()
        assert (await api.upload("bad", "zip;c;v;y\n" + rows, f"?{query}")).problem == (400, code)
        assert api.trace() == before


async def test_a_dataset_is_given_back_as_one_parquet_file_or_as_csv(api: World) -> None:
    await api.upload("given", "code,v,y\n" + '"NA",1,p\n"10001",2,q\n' * 10)
    whole = await api.call("GET", "/v1/datasets/given/content?format=parquet")
    assert whole.headers["Content-Type"] == "application/vnd.apache.parquet"
    assert whole.headers["Content-Disposition"] == 'attachment; filename="given-1.parquet"'
    table = pq.read_table(io.BytesIO(whole.raw))
    assert table.to_pylist()[:2] == [{"code": "NA", "v": 1, "y": "p"}, {"code": "10001", "v": 2, "y": "q"}]
    again = await api.upload("again", whole.raw)
    assert again.json["digest"] == (await api.get("/v1/datasets/given"))["digest"]
    text = await api.call("GET", "/v1/datasets/given/content")
    assert text.raw.startswith(b'code,v,y\n"NA",1,"p"\n"10001",2,"q"\n')
    assert (await api.upload("again", text.raw)).status == 200
    assert (await api.call("GET", "/v1/datasets/given/content?format=xlsx")).problem == (415, "unsupported_format")
    assert list(api.tmp.iterdir()) == []
