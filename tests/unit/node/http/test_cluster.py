"""The cluster over HTTP: the whole picture, members that drain and leave, leadership handed over, figures."""

import asyncio
import re

import msgspec
import pytest
from msgspec import structs

from consensus.messages import BeginEpoch, DropBlobs, HoldBlobs, JoinMember
from consensus.state import NodeId
from node.http.cluster import describe
from node.membership.manager import Membership
from node.membership.voters import Limits
from serving.stats import ModelStats, StatsReport
from tests.support.clock import Clock
from tests.unit.node.http.facts import dataset, model
from tests.unit.node.http.world import World, world
from training.ports import TrainerReport

pytestmark = pytest.mark.asyncio(loop_scope="module")

QUICK = Limits(max_voters=5, promote_after=0.2, away_after=60.0)


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
    await dataset(api, "flowers", seed=77)
    ports = msgspec.structs.replace(api.ports, lost=api.flock.replicators[api.flock.first.id].lost)
    assert describe(ports).alarms == []
    digest = api.state.datasets["flowers"].versions[1].parts[0].digest
    for node in api.flock.nodes:
        await node.blobs.remove(digest)
        await api.log.propose(DropBlobs(node.id, (digest,)), actor="test")
    (alarm,) = describe(ports).alarms
    assert alarm.code == "blob_lost"
    assert "the bytes of dataset flowers 1: " in alarm.message


async def test_ray_goes_from_down_to_starting_to_up(fresh: World) -> None:
    assert (await fresh.get("/v1/cluster"))["ray"]["state"] == "down"
    await fresh.log.propose(BeginEpoch(1, fresh.flock.first.id), actor="test")
    assert (await fresh.get("/v1/cluster"))["ray"]["state"] == "starting"
    fresh.ports.telemetry.accept_trainer(TrainerReport(1, 1, 4.0, 1.5, "inline"))
    ray = (await fresh.get("/v1/cluster"))["ray"]
    assert (ray["state"], ray["epoch"], ray["head"], ray["cpus"], ray["cpus_used"], ray["mode"]) == (
        "up",
        1,
        fresh.flock.first.id,
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


async def test_two_nodes_of_one_name_are_told_apart_by_id(tmp_path: object) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        twin = structs.replace(api.state.members[api.flock.nodes[1].id], id=NodeId("e" * 32))
        await api.log.propose(JoinMember(twin), actor="test")
        before = api.trace()
        for method, path in (("POST", "node-1/drain"), ("DELETE", "node-1")):
            refused = await api.call(method, f"/v1/nodes/{path}")
            assert refused.problem == (409, "conflict")
            assert twin.id in refused.json["error"]
        assert api.trace() == before
        assert (await api.call("DELETE", f"/v1/nodes/{twin.id}")).json["removed"] is True


async def test_a_node_loses_its_vote_and_leaves_for_good(tmp_path: object, clock: Clock) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        last = api.flock.nodes[2].id
        headers = {"Idempotency-Key": "leave"}
        for _ in range(2):  # a client whose answer was lost asks again, by the id
            gone = await clock.run(api.call("DELETE", f"/v1/nodes/{last}", headers=headers))
            assert gone.json["removed"] is True
        assert last in api.state.revoked
        found = await api.get("/v1/cluster")
        assert len(found["nodes"]) == len(found["voters"]) == 2


async def test_a_node_that_leaves_is_told_by_its_peers_when_they_have_cut_it_off(
    tmp_path: object, clock: Clock
) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        me, other = api.flock.first.id, api.flock.nodes[1].id
        assert (await api.call("POST", "/v1/cluster/transfer", json={"to": "node-1"})).status == 200
        await api.flock.logs[other].remove_voter(me)
        with api.cut_off():
            with clock.standing():  # so that it is too early to give up
                leaving = asyncio.create_task(api.call("DELETE", f"/v1/nodes/{me}"))
                taking = asyncio.create_task(api.call("DELETE", "/v1/nodes/node-2?force=true"))
                assert (await api.get("/v1/cluster"))["quorum"] is False
                assert not leaving.done(), "nothing is known yet"
                api.ports.removed.set()
                left = await leaving
            assert (left.status, left.json) == (200, {"id": me, "removed": True})
            assert "x-parvada-index" not in left.headers
            # Of what it asked for besides it knows nothing.
            assert (await clock.run(taking)).problem == (503, "no_quorum")


async def test_a_leader_that_is_removed_hands_over_first(tmp_path: object, clock: Clock) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        me = api.flock.first.id
        managers = [Membership(api.flock.logs[node.id], QUICK, clock) for node in api.flock.nodes[1:]]
        for number, manager in enumerate(managers):
            api.flock.tasks.start(manager.run(), f"membership-{number}")
        retiring = asyncio.create_task(api.ports.leadership.retire(me))
        await clock.until(lambda: api.flock.network.leader != me)
        # The next leader is asked over the wire; here its own manager stands for it.
        leader = next(m for m in managers if m._log.status.me == api.flock.network.leader)
        assert await clock.run(leader.retire(me, 5.0))
        await clock.run(retiring)
        assert me not in api.log.status.voters


async def test_bytes_that_only_this_node_has_are_not_given_up_unasked(tmp_path: object) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        await dataset(api, "flowers")
        digest = api.state.datasets["flowers"].versions[1].parts[0].digest
        last = api.flock.nodes[2].id
        await api.log.propose(HoldBlobs(last, (digest,)), actor="test")
        for other in api.flock.nodes[:2]:
            await api.log.propose(DropBlobs(other.id, (digest,)), actor="test")
        before = api.trace()
        refused = await api.call("DELETE", "/v1/nodes/node-2")
        assert refused.problem == (409, "only_copies")
        assert "the bytes of dataset flowers 1: drain node-2" in refused.json["error"]
        assert (await api.call("DELETE", "/v1/nodes/node-2?force=maybe")).problem == (400, "invalid")
        assert api.trace() == before
        assert (await api.call("DELETE", "/v1/nodes/node-2?force=true")).json["removed"] is True
        assert last in api.state.revoked


async def test_draining_is_done_when_the_copies_are_elsewhere(tmp_path: object) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        await dataset(api, "flowers")
        digest = api.state.datasets["flowers"].versions[1].parts[0].digest
        last = api.flock.nodes[2].id
        await api.log.propose(HoldBlobs(last, (digest,)), actor="test")
        await api.log.propose(DropBlobs(api.flock.nodes[1].id, (digest,)), actor="test")
        drained = await api.call("POST", "/v1/nodes/node-2/drain")
        assert drained.json["drain"] == {"blobs": 1, "votes": True, "done": False}
        await api.log.propose(HoldBlobs(api.flock.nodes[1].id, (digest,)), actor="test")
        by_name = {node["name"]: node["drain"] for node in (await api.get("/v1/cluster"))["nodes"]}
        assert by_name == {"node-0": None, "node-1": None, "node-2": {"blobs": 0, "votes": True, "done": True}}


async def test_the_last_node_that_takes_work_cannot_drain(tmp_path: object) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        for name in ("node-1", "node-2"):
            assert (await api.call("POST", f"/v1/nodes/{name}/drain")).status == 200
        refused = await api.call("POST", "/v1/nodes/node-0/drain")
        assert refused.problem == (409, "conflict")
        assert "no other node is here to take its work" in refused.json["error"]


async def test_leadership_is_handed_over(tmp_path: object) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        me, other = api.flock.first.id, api.flock.nodes[1].id
        assert (await api.call("POST", "/v1/cluster/transfer", json={"to": me})).json == {"leader": me}
        for to, problem in (("nobody", (404, "unknown_node")), (3, (400, "invalid"))):
            assert (await api.call("POST", "/v1/cluster/transfer", json={"to": to})).problem == problem
        assert (await api.call("POST", "/v1/cluster/transfer", json={"to": "node-1"})).json == {"leader": other}
        assert (await api.get("/v1/cluster"))["leader"] == other
        # A follower still takes writes.
        assert (await api.call("POST", "/v1/nodes/node-2/drain")).status == 200


async def test_leadership_does_not_go_where_nobody_could_lead(tmp_path: object) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        last = api.flock.nodes[2].id
        api.flock.network.kill(last)
        gone = await api.call("POST", "/v1/cluster/transfer", json={"to": last})
        assert gone.problem == (409, "node_unreachable")
        assert last in gone.json["error"]
        api.flock.network.revive(last)
        await api.log.remove_voter(last)
        learner = await api.call("POST", "/v1/cluster/transfer", json={"to": "node-2"})
        assert learner.problem == (409, "conflict")
        assert "node-2 is a learner" in learner.json["error"]
        # From a follower the leader is asked over the wire, and nobody serves there.
        assert (await api.call("POST", "/v1/cluster/transfer", json={"to": "node-1"})).status == 200
        me = await api.call("POST", "/v1/cluster/transfer", json={"to": "node-0"})
        assert me.problem == (503, "leader_unreachable")


async def test_leadership_goes_to_any_other_voter_if_none_is_named(tmp_path: object) -> None:
    async with world(tmp_path) as api:  # type: ignore[arg-type]
        answer = await api.call("POST", "/v1/cluster/transfer")
        assert answer.json["leader"] in {node.id for node in api.flock.nodes[1:]}


# ---------------------------------------------------------------- figures
@pytest.fixture
def load(fresh: World) -> None:
    row = ModelStats("iris", 2, requests=10, errors=1, rows=30, max_microseconds=9000, histogram={200: 10})
    fresh.ports.telemetry.accept_stats(StatsReport(1, (row,)))


@pytest.mark.usefixtures("load")
async def test_stats_are_merged(fresh: World) -> None:
    found = await fresh.get("/v1/stats")
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
async def test_metrics_are_what_prometheus_reads(fresh: World) -> None:
    await model(fresh, "flower")
    answer = await fresh.call("GET", "/metrics", role=None)
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
    assert found["parvada_raft_applied_index"] == fresh.state.index
    assert found['parvada_jobs{state="succeeded"}'] == 1
    assert found['parvada_requests_total{model="iris",version="2"}'] == 10
    assert kinds["parvada_requests_total"] == "counter"
    assert 0 < found['parvada_latency_seconds{model="iris",version="2",quantile="0.5"}'] < 1
