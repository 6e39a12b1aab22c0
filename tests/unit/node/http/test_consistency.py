"""How fresh a read is, what a node without a quorum says, and that no input makes an error of ours."""

import asyncio
import contextlib
import string
from collections.abc import AsyncIterator

import msgspec
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings, strategies as st
from yarl import URL

from consensus.messages import AddDatasetVersion, Barrier, BeginEpoch, CancelJob, DeleteDataset, HeldBlob
from consensus.state import DatasetVersion, JobId
from tests.support.clock import Clock
from tests.support.memory_log import MemoryLog
from tests.unit.node.http.facts import dataset, flowers
from tests.unit.node.http.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


# ---------------------------------------------------------------- freshness
async def test_a_read_waits_for_the_index_that_it_asks_for(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    index = api.state.index
    assert (await api.call("GET", f"/v1/cluster?min_index={index}")).json["applied_index"] >= index
    wait_applied, begun = api.log.wait_applied, asyncio.Event()

    async def noted(asked: int, timeout: float) -> None:
        begun.set()
        await wait_applied(asked, timeout)

    monkeypatch.setattr(api.log, "wait_applied", noted)
    waiting = asyncio.create_task(api.call("GET", f"/v1/cluster?min_index={index + 1}"))
    await begun.wait()
    assert api.state.index == index
    await api.log.propose(Barrier(), actor="test")
    assert (await waiting).json["applied_index"] == index + 1


async def test_a_read_of_an_index_that_no_write_has_had(api: World, clock: Clock) -> None:
    """It is no use to wait for it, and the same at any node."""
    asked = api.state.index + 100
    answer = await clock.run(api.call("GET", f"/v1/cluster?min_index={asked}"))
    assert answer.problem == (409, "index_ahead")
    assert answer.json["details"] == {"field": "min_index", "value": asked, "reached": api.state.index}


async def test_a_read_of_an_index_that_another_node_has_acknowledged(api: World, clock: Clock) -> None:
    """However far this node is behind: it catches up."""
    async with late(api) as other:
        done = await other.propose(Barrier(), actor="test")
        assert api.state.index < done.index
        answer = await clock.run(api.call("GET", f"/v1/cluster?min_index={done.index}"))
        assert answer.json["applied_index"] >= done.index
    with api.cut_off():
        alone = await clock.run(api.call("GET", f"/v1/cluster?min_index={api.state.index + 100}"))
        assert alone.problem == (503, "no_quorum")


async def test_a_linearizable_read_goes_through_the_log(api: World) -> None:
    before = api.state.index
    assert (await api.call("GET", "/v1/cluster?consistency=linearizable")).json["applied_index"] == before + 1
    assert (await api.call("GET", "/v1/cluster?consistency=local")).json["applied_index"] == before + 1


@pytest.mark.parametrize(
    "query", ["consistency=strong", "min_index=-1", "min_index=x", "min_index=" + "9" * 5000, "min_index=1&min_index=2"]
)
async def test_freshness_that_makes_no_sense(api: World, query: str) -> None:
    assert (await api.call("GET", f"/v1/cluster?{query}")).problem == (400, "invalid")


# ---------------------------------------------------------------- made a moment ago through another node
@contextlib.asynccontextmanager
async def late(api: World) -> AsyncIterator[MemoryLog]:
    """What the log that it gives commits does not come to the node that is asked by itself."""
    network, first = api.flock.network, api.flock.first.id
    network.lag(first)
    try:
        yield network.logs[api.flock.nodes[1].id]
    finally:
        network.lag(first, False)


def again(made: DatasetVersion, name: str, target: str = "") -> AddDatasetVersion:
    """The upload of `made` once more, under another name or with another target."""
    return AddDatasetVersion(
        name=name,
        digest=made.digest,
        rows=made.rows,
        bytes=made.bytes,
        parts=made.parts,
        target=target or made.target,
        task=made.task,
        detail=made.detail,
        blobs=tuple(HeldBlob(part.digest, part.bytes, ()) for part in made.parts),
    )


async def test_what_another_node_acknowledged_is_never_unknown(api: World) -> None:
    await dataset(api, "early")
    made = api.state.datasets["early"].versions[1]
    async with late(api) as other:
        await other.propose(again(made, "late"), actor="test")
        assert "late" not in api.state.datasets
        assert (await api.get("/v1/datasets/late"))["rows"] == 60
        await other.propose(again(made, "later"), actor="test")
        job = await api.call("POST", "/v1/jobs", json={"datasets": ["later"], "models": ["GaussianNB"]})
        assert job.status == 202, job.raw
        await other.propose(CancelJob(JobId(job.json["id"])), actor="test")
        await other.propose(DeleteDataset("later"), actor="test")
        assert (await api.call("GET", "/v1/datasets/never")).problem == (404, "unknown_dataset")
        assert (await api.call("GET", "/v1/datasets/later")).problem == (404, "unknown_dataset")


async def test_a_job_takes_the_newest_version_that_any_node_acknowledged(api: World) -> None:
    await dataset(api, "twice")
    made = api.state.datasets["twice"].versions[1]
    async with late(api) as other:
        await other.propose(again(made, "twice", target="colour"), actor="test")
        assert set(api.state.datasets["twice"].versions) == {1}
        job = await api.call("POST", "/v1/jobs", json={"datasets": ["twice"], "models": ["GaussianNB"]})
        assert [unit["version"] for unit in job.json["per_dataset"]] == [2]


async def test_without_a_quorum_what_is_not_here_is_unknown_at_once(api: World) -> None:
    with api.cut_off():
        answer = await api.call("GET", "/v1/datasets/never")
        assert answer.problem == (404, "unknown_dataset")
        assert "x-parvada-stale" in answer.headers


# ---------------------------------------------------------------- no quorum
async def test_without_a_quorum_reads_go_on_and_writes_say_when_to_come_back(api: World, clock: Clock) -> None:
    await dataset(api, "kept")
    with api.cut_off():
        before = api.trace()
        shown = await api.call("GET", "/v1/cluster")
        assert (shown.json["quorum"], shown.json["leader"]) == (False, None)
        assert [alarm["code"] for alarm in shown.json["alarms"]] == ["no_quorum"]
        assert float(shown.headers["x-parvada-stale"]) >= 0
        assert (await api.get("/v1/datasets/kept"))["rows"] == 60
        for method, path, more in (
            ("POST", "/v1/jobs", {"json": {"datasets": ["kept"], "models": ["GaussianNB"]}}),
            ("DELETE", "/v1/datasets/kept", {}),
            ("POST", "/v1/tokens", {"json": {"name": "x", "role": "viewer"}}),
            ("POST", f"/v1/nodes/{api.flock.nodes[1].id}/drain", {}),
            ("POST", "/v1/cluster/transfer", {}),
            ("GET", "/v1/cluster?consistency=linearizable", {}),
        ):
            refused = await clock.run(api.call(method, path, **more))
            assert refused.problem == (503, "no_quorum"), path
            assert int(refused.headers["Retry-After"]) >= 1
            assert "x-parvada-stale" in refused.headers
            if method != "GET" and "transfer" not in path:  # long before the log itself would give up
                assert "no majority of the voters has been in reach for" in refused.json["error"], path
        assert api.trace() == before
        upload = await clock.run(api.upload("unsure", flowers(seed=9)))
        assert upload.problem[0] == 503
        assert "unsure" not in api.state.datasets
    assert "x-parvada-stale" not in (await api.call("GET", "/v1/cluster")).headers
    assert (await api.upload("unsure", flowers(seed=9))).status == 201


# ---------------------------------------------------------------- every answer
async def test_every_answer_says_which_node_gave_it(api: World) -> None:
    for method, path in (("GET", "/v1/cluster"), ("GET", "/metrics"), ("GET", "/nothing"), ("PATCH", "/v1/jobs")):
        assert (await api.call(method, path)).headers["x-parvada-node"] == api.flock.first.id


async def test_what_no_table_knows_is_ours_and_shows_no_trace(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise KeyError("secret detail")

    monkeypatch.setattr(api.ports.telemetry, "stats", broken)
    answer = await api.call("GET", "/v1/stats")
    assert answer.problem == (500, "internal_error")
    assert b"secret" not in answer.raw


async def test_half_an_answer_is_cut_off_never_ended(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await dataset(api, "torn")

    async def broken(response: web.StreamResponse, path: object) -> None:
        await response.write(b"length,width\n1,2\n")
        raise OSError("the disk is gone")

    monkeypatch.setattr("node.http.datasets._send", broken)
    with pytest.raises(Exception, match=r"(?i)payload|disconnected|reset"):
        await api.call("GET", "/v1/datasets/torn/content")
    assert list(api.tmp.iterdir()) == []


ODD = st.text(alphabet=st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40).map(str.strip)
PATHS = [
    "/v1/cluster",
    "/v1/events",
    "/v1/datasets/{x}",
    "/v1/datasets/{x}/versions/{x}",
    "/v1/jobs/{x}",
    "/v1/models/{x}/versions/{x}",
    "/v1/models/{x}/aliases/{x}",
    "/v1/nodes/{x}/drain",
    "/v1/tokens/{x}",
    "/v1/stats/history",
]
NAMES = [
    "since",
    "kind",
    "min_index",
    "window",
    "step",
    "rows",
    "limit",
    "state",
    "as_of",
    "target",
    "consistency",
    "?",
]


@given(
    path=st.sampled_from(PATHS),
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    word=st.text(alphabet=string.printable + "é\u2028\U0001f600", min_size=1, max_size=30),
    query=st.dictionaries(st.sampled_from(NAMES), ODD, max_size=2),
    header=ODD,
    body=st.one_of(
        st.binary(max_size=60), st.sampled_from([b"{}", b"[]", b'{"version":1e400}', b'{"name":"\\ud800"}'])
    ),
)
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
async def test_no_input_is_our_error(
    api: World, path: str, method: str, word: str, query: dict[str, str], header: str, body: bytes
) -> None:
    words = URL.build(path="/" + word.replace("/", "")).raw_path.strip("/") or "x"
    if path == "/v1/events" and method == "GET":
        query = {**query, "since": "x"}  # the stream of a good call has no end
    url = URL(api.url + path.replace("{x}", words), encoded=True).with_query(query)
    headers = {"Authorization": "Bearer pvd_admin", "Last-Event-ID": header, "Idempotency-Key": header}
    async with api.session.request(method, url, headers=headers, data=body) as response:
        assert response.status < 500, await response.text()
        if response.status >= 400:
            assert (await response.json())["code"]


@pytest.mark.parametrize(
    ("method", "path", "header", "status"),
    [
        ("GET", "/v1/events", "Last-Event-ID", 400),
        ("GET", "/v1/cluster", "Authorization: Bearer x", 401),
        ("POST", "/v1/nodes/none/drain", "Authorization: Bearer pvd_admin\r\nIdempotency-Key", 404),
        ("DELETE", "/v1/tokens/none", "Authorization: Bearer pvd_admin\r\nIdempotency-Key", 404),
    ],
)
async def test_headers_that_are_no_text(api: World, method: str, path: str, header: str, status: int) -> None:
    """Bytes that are not UTF-8, which a client of a decent library cannot send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(api.url.rpartition(":")[2]))
    separator = "" if "Bearer x" in header else ": "
    lines = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}{separator}"
    writer.write(lines.encode() + b"\xff\xfe\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert int(head.split()[1]) == status, answer
    assert msgspec.json.decode(body)["code"]


async def test_a_rejected_command_is_a_conflict_and_changes_nothing(api: World) -> None:
    """A race that no check before the commit can see ends in the state machine's own refusal."""
    await api.log.propose(BeginEpoch(api.state.epoch.number + 1, api.flock.first.id), actor="test")
    last = api.flock.nodes[2].id
    await api.call("POST", f"/v1/nodes/{last}/drain", headers={"Idempotency-Key": "same"})
    again = await api.call("POST", f"/v1/nodes/{last}/drain", headers={"Idempotency-Key": "same"})
    assert again.json["state"] == "draining"
    assert (await api.call("POST", f"/v1/nodes/{last}/undrain")).json["state"] == "alive"
