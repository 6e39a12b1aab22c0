"""The cluster over HTTP: the whole picture, members that drain and leave, leadership handed over, figures."""

import re

import msgspec
import pytest

from consensus.messages import BeginEpoch, DropBlobs
from node.http.cluster import describe
from serving.stats import ModelStats, StatsReport
from tests.unit.node.http.facts import dataset, model
from tests.unit.node.http.world import World, world
from training.ports import TrainerReport

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_whole_picture(api: World) -> None:
    found = await api.get("/v1/cluster")
    ids = sorted(node.id for node in api.flock.nodes)
    assert (found["cluster_id"], found["name"], found["formation"]) == ("c0ffee", "test", "volume")
    assert (found["leader"], found["quorum"], found["voters"], found["learners"]) == (api.flock.first.id, True, ids, [])
    assert found["commit_index"] == found["applied_index"] == api.state.index
    assert sorted(node["id"] for node in found["nodes"]) == ids
    assert [node["name"] for node in found["nodes"]] == ["node-0", "node-1", "node-2"]
    assert {(node["role"], node["state"]) for node in found["nodes"]} == {("voter", "alive")}
    assert found["alarms"] == []


async def test_bytes_that_nobody_has_are_an_alarm_that_names_them(api: World) -> None:
    await dataset(api, "flowers")
    ports = msgspec.structs.replace(api.ports, lost=api.flock.replicators[api.flock.first.id].lost)
    assert describe(ports).alarms == []
    digest = api.state.datasets["flowers"].versions[1].parts[0].digest
    for node in api.flock.nodes:
        await node.blobs.remove(digest)
        await api.log.propose(DropBlobs(node.id, (digest,)), actor="test")
    (alarm,) = describe(ports).alarms
    assert alarm.code == "blob_lost"
    assert "the bytes of dataset flowers 1: " in alarm.message


async def test_ray_goes_from_down_to_starting_to_up(api: World) -> None:
    assert (await api.get("/v1/cluster"))["ray"]["state"] == "down"
    await api.log.propose(BeginEpoch(1, api.flock.first.id), actor="test")
    assert (await api.get("/v1/cluster"))["ray"]["state"] == "starting"
    api.ports.telemetry.accept_trainer(TrainerReport(1, 1, 4.0, 1.5, "inline"))  # type: ignore[attr-defined]
    ray = (await api.get("/v1/cluster"))["ray"]
    assert (ray["state"], ray["epoch"], ray["head"], ray["cpus"], ray["cpus_used"], ray["mode"]) == (
        "up",
        1,
        api.flock.first.id,
        4.0,
        1.5,
        "inline",
    )


@pytest.mark.parametrize("by", ["id", "name"])
async def test_a_member_drains_and_comes_back(api: World, by: str) -> None:
    node = api.flock.nodes[1].id if by == "id" else "node-1"
    drained = await api.call("POST", f"/v1/nodes/{node}/drain")
    assert (drained.status, drained.json["state"], drained.json["name"]) == (200, "draining", "node-1")
    assert int(drained.headers["x-parvada-index"]) == api.state.index
    assert (await api.call("POST", f"/v1/nodes/{node}/undrain")).json["state"] == "alive"


async def test_a_member_that_is_not_there(api: World) -> None:
    before = api.trace()
    for method, path in (("POST", "node-9/drain"), ("POST", "node-9/undrain"), ("DELETE", "node-9")):
        answer = await api.call(method, f"/v1/nodes/{path}")
        assert answer.problem == (404, "unknown_node")
        assert "did you mean 'node-" in answer.json["error"]
    assert api.trace() == before


async def test_only_a_node_without_a_vote_leaves_and_it_leaves_for_good(tmp_path: object) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        last = api.flock.nodes[2].id
        before = api.trace()
        refused = await api.call("DELETE", "/v1/nodes/node-2")
        assert refused.problem == (409, "conflict")
        assert "votes" in refused.json["error"]
        assert api.trace() == before
        await api.log.remove_voter(last)
        assert (await api.get("/v1/cluster"))["learners"] == [last]
        headers = {"Idempotency-Key": "leave"}
        for _ in range(2):  # a client whose answer was lost asks again, by the id
            assert (await api.call("DELETE", f"/v1/nodes/{last}", headers=headers)).json["removed"] is True
        assert last in api.state.revoked
        assert len((await api.get("/v1/cluster"))["nodes"]) == 2


async def test_leadership_is_handed_over(tmp_path: object) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        me, other = api.flock.first.id, api.flock.nodes[1].id
        assert (await api.call("POST", "/v1/cluster/transfer", json={"to": me})).json == {"leader": me}
        for to, problem in (("nobody", (404, "unknown_voter")), (3, (400, "invalid"))):
            assert (await api.call("POST", "/v1/cluster/transfer", json={"to": to})).problem == problem
        assert (await api.call("POST", "/v1/cluster/transfer", json={"to": other})).json == {"leader": other}
        assert (await api.get("/v1/cluster"))["leader"] == other
        # A follower still takes writes.
        assert (await api.call("POST", "/v1/nodes/node-2/drain")).status == 200


async def test_leadership_goes_to_any_other_voter_if_none_is_named(tmp_path: object) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        answer = await api.call("POST", "/v1/cluster/transfer")
        assert answer.json["leader"] in {node.id for node in api.flock.nodes[1:]}


# ---------------------------------------------------------------- figures
@pytest.fixture
def load(api: World) -> None:
    row = ModelStats("iris", 2, requests=10, errors=1, rows=30, max_microseconds=9000, histogram={200: 10})
    api.ports.telemetry.accept_stats(StatsReport(1, (row,)))  # type: ignore[attr-defined]


@pytest.mark.usefixtures("load")
async def test_stats_are_merged(api: World) -> None:
    found = await api.get("/v1/stats")
    (row,) = found["models"]
    assert (row["model"], row["version"], row["requests"], row["errors"], row["rows"]) == ("iris", 2, 10, 1, 30)
    assert 0 < row["p50"] <= row["p99"]
    assert len(found["nodes"]) == 3


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("", 200),
        ("?window=5m&step=30s", 200),
        ("?window=60&step=2", 200),
        ("?window=1h", 400),
        ("?step=1s", 400),
        ("?window=ten", 400),
        ("?window=10s&step=1m", 400),
        ("?windw=10s", 400),
    ],
)
async def test_history(api: World, query: str, status: int) -> None:
    answer = await api.call("GET", f"/v1/stats/history{query}")
    assert answer.status == status
    assert ("points" in answer.json) == (status == 200)


SAMPLE = re.compile(r'([a-z_]+)(\{[a-z_]+="(?:[^"\\]|\\.)*"(?:,[a-z_]+="(?:[^"\\]|\\.)*")*\})? (-?[0-9.e+-]+)')


@pytest.mark.usefixtures("load")
async def test_metrics_are_what_prometheus_reads(api: World) -> None:
    await model(api, "flower")
    answer = await api.call("GET", "/metrics", role=None)
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    text = answer.raw.decode()
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    found: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name not in kinds
            kinds[name] = kind
        elif not line.startswith("# HELP "):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] in kinds, "a sample comes after its type"
            assert (match[1] + (match[2] or "")) not in found
            found[match[1] + (match[2] or "")] = float(match[3])
    assert found["parvada_raft_leader"] == found["parvada_raft_quorum"] == 1
    assert found["parvada_raft_applied_index"] == api.state.index
    assert found['parvada_jobs{state="succeeded"}'] == 1
    assert found['parvada_requests_total{model="iris",version="2"}'] == 10
    assert kinds["parvada_requests_total"] == "counter"
    assert 0 < found['parvada_latency_seconds{model="iris",version="2",quantile="0.5"}'] < 1
