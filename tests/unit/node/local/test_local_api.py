"""The Unix socket: views and entries stream, proposals commit once, blobs are fetched; clients of fronts get none."""

import asyncio
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from consensus.codec import decode_entry, decode_state, encode_command
from consensus.messages import BeginEpoch, CreateToken, NameCluster
from consensus.rules.machine import apply
from consensus.state import ClusterState, NodeId, Role
from node.local import view_feed
from node.local.api import LocalApi, serve
from node.local.serving_view import ViewBuilder
from node.local.view_feed import ViewFeed
from node.telemetry.telemetry import Telemetry
from parvada.local import FRONT_HEADER
from parvada.schema import LiveJob
from serving.stats import ModelStats, StatsReply, StatsReport
from serving.view import ServingView, decode_view
from tests.support.clock import Clock
from tests.unit.node.cluster import Flock, flock
from training.ports import CurvePoint, FitNews, LiveReport, TrainerReport

CONTENT = b"model" * 1000
ADMINS = ("a" * 64,)


class Agent:
    """What an agent puts together for its children."""

    def __init__(self, flock: Flock, folder: Path, age: float) -> None:
        self.flock = flock
        node, log = flock.first, flock.log
        self.tmp = folder / "tmp"
        self.tmp.mkdir()
        self.views = ViewFeed(log, ViewBuilder(node.id, "writes", lambda: ADMINS), age)
        self.telemetry = Telemetry(
            node.id, "node-0", "0.1.0", log, node.blobs, folder, sessions=lambda: (), owed=lambda: 0
        )
        self.api = LocalApi(
            log,
            self.views,
            node.blobs,
            node.transfer,
            flock.distributors[node.id],
            self.telemetry,
            self.tmp,
            node.live,
        )


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[Flock]:
    async with flock(tmp_path, 3) as made:
        yield made


@pytest.fixture
def age() -> float:
    """Seconds between two views when nothing changes."""
    return view_feed.AGE_SECONDS


@pytest.fixture
async def agent(three: Flock, tmp_path: Path, age: float) -> Agent:
    made = Agent(three, tmp_path, age)
    three.tasks.start(made.views.run(), "views")
    return made


@pytest.fixture
async def local(agent: Agent) -> AsyncIterator[aiohttp.ClientSession]:
    with tempfile.TemporaryDirectory() as folder:  # tmp_path may be too long for a socket
        socket = Path(folder) / "run" / "agent.sock"
        app = web.Application()
        app.add_routes(agent.api.routes())
        app.on_shutdown.append(agent.api.end_streams)
        runner = await serve(app, socket)
        assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
        async with aiohttp.ClientSession("http://agent", connector=aiohttp.UnixConnector(str(socket))) as session:
            yield session
        async with asyncio.timeout(30):  # streams that have no end must not hold it up
            await runner.cleanup()


async def read_frame(response: aiohttp.ClientResponse) -> bytes:
    size = int.from_bytes(await response.content.readexactly(4), "big")
    return await response.content.readexactly(size)


def read(path: str) -> bytes:
    return Path(path).read_bytes()


async def view_that(response: aiohttp.ClientResponse, wanted: str) -> ServingView:
    """The first view in which the expression holds."""
    while True:
        view = decode_view(await read_frame(response))
        if eval(wanted, {"view": view}):  # noqa: S307  the test's own words
            return view


# ---------------------------------------------------------------- views
@pytest.mark.parametrize("age", [600.0])
async def test_the_view_comes_at_once_and_with_every_change(agent: Agent, local: aiohttp.ClientSession) -> None:
    async with local.get("/local/view") as response:
        view = decode_view(await read_frame(response))
        assert (view.node, view.auth, view.ready, view.stale_seconds) == (agent.flock.first.id, "writes", True, None)
        assert [(token.sha256, token.role) for token in view.tokens] == [("a" * 64, "admin")]
        await agent.flock.log.propose(CreateToken("t1", "ci", Role.PREDICTOR, "b" * 64), actor="test")
        view = await view_that(response, "len(view.tokens) == 2")
        assert (view.tokens[1].sha256, view.tokens[1].role) == ("b" * 64, "predictor")


async def test_a_lost_quorum_shows_as_age(agent: Agent, local: aiohttp.ClientSession, clock: Clock) -> None:
    three = agent.flock
    async with local.get("/local/view") as response:
        await view_that(response, "view.stale_seconds is None")
        three.network.partition({three.first.id}, {node.id for node in three.nodes[1:]})
        await clock.run(view_that(response, "view.stale_seconds is not None"))
        three.network.heal()
        await clock.run(view_that(response, "view.stale_seconds is None"))


# ---------------------------------------------------------------- log
async def test_a_replica_follows_the_log(agent: Agent, local: aiohttp.ClientSession) -> None:
    async with local.get("/local/log") as response:
        body = await read_frame(response)
        assert body[0] == 0
        replica: ClusterState = decode_state(body[1:])
        assert replica == agent.flock.log.state
        for number in (1, 2, 3):
            await agent.flock.log.propose(BeginEpoch(number, agent.flock.first.id), actor="test")
        while replica.epoch.number < 3:
            body = await read_frame(response)
            assert body[0] == 1
            index = int.from_bytes(body[1:9], "big")
            replica = apply(replica, index, decode_entry(body[9:])).state
        assert replica == agent.flock.log.state


async def test_a_reader_that_went_away_is_noticed(agent: Agent, local: aiohttp.ClientSession, clock: Clock) -> None:
    before = len(asyncio.all_tasks())
    async with local.get("/local/log") as response:
        await read_frame(response)
        assert len(asyncio.all_tasks()) > before
    await clock.until(lambda: len(asyncio.all_tasks()) <= before)  # nothing else tells the end of a server's task


async def test_a_proposal_is_committed_once_for_one_id(agent: Agent, local: aiohttp.ClientSession) -> None:
    command = encode_command(CreateToken("t1", "ci", Role.VIEWER, "c" * 64))
    headers = {"x-command-id": "one", "x-actor": "trainer"}
    answers = []
    for _ in range(2):
        async with local.post("/local/propose", data=command, headers=headers) as response:
            assert response.status == 200
            answers.append(await response.json())
    assert answers[0] == answers[1]
    assert answers[0]["value"] == {}
    state = agent.flock.log.state
    assert [entry.actor for entry in state.audit.values() if entry.command == "CreateToken"] == ["trainer"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"\x01\xff", 400, "invalid"),
        (b"", 400, "invalid"),
        (encode_command(BeginEpoch(7, NodeId("f" * 32))), 409, None),
        (encode_command(NameCluster("", "x" * 5000)), 409, None),
    ],
)
async def test_bad_proposals(local: aiohttp.ClientSession, body: bytes, status: int, code: str | None) -> None:
    async with local.post("/local/propose", data=body) as response:
        assert response.status == status
        problem = await response.json()
        assert problem["error"]
        assert code in (None, problem["code"])


async def test_no_quorum_is_said_with_when_to_retry(agent: Agent, local: aiohttp.ClientSession, clock: Clock) -> None:
    three = agent.flock
    three.network.partition({three.first.id}, {node.id for node in three.nodes[1:]})
    asked = local.post("/local/propose", data=encode_command(BeginEpoch(1, three.first.id)))
    async with await clock.run(asked) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "1"
        assert (await response.json())["code"] == "no_quorum"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "view"),
        ("GET", "log"),
        ("POST", "propose"),
        ("POST", "blobs"),
        ("POST", "stats"),
        ("POST", "trainer"),
        ("POST", "live"),
    ],
)
async def test_what_came_through_a_front_gets_nothing(local: aiohttp.ClientSession, method: str, path: str) -> None:
    headers = {FRONT_HEADER: "1"}
    async with local.request(method, f"/local/{path}", headers=headers, data=b"") as response:
        assert response.status == 404


# ---------------------------------------------------------------- blobs
async def test_a_blob_elsewhere_is_made_present(agent: Agent, local: aiohttp.ClientSession) -> None:
    three = agent.flock
    digest = await three.nodes[1].keep(CONTENT)
    await three.first.keep(CONTENT)
    await three.add_dataset(digest, (three.nodes[1].id,))
    await three.first.blobs.remove(digest)
    async with local.get(f"/local/blobs/{digest}") as response:
        answer = await response.json()
    assert read(answer["path"]) == CONTENT
    assert answer["bytes"] == len(CONTENT)


async def test_a_corrupt_blob_is_replaced_before_anyone_reads_it(agent: Agent, local: aiohttp.ClientSession) -> None:
    three = agent.flock
    digest = await three.first.keep(CONTENT)
    await three.nodes[1].keep(CONTENT)
    await three.add_dataset(digest, (three.first.id, three.nodes[1].id))
    three.first.blobs.path(digest).write_bytes(b"rot" * 1000)
    async with local.get(f"/local/blobs/{digest}") as response:
        assert read((await response.json())["path"]) == CONTENT


@pytest.mark.parametrize(("digest", "status"), [("f" * 64, 404), ("../key.pem", 404), ("xyz", 400)])
async def test_blobs_that_cannot_be_had(local: aiohttp.ClientSession, digest: str, status: int) -> None:
    async with local.get(f"/local/blobs/{digest}") as response:
        assert response.status == status


async def test_a_childs_file_becomes_a_durable_blob(agent: Agent, local: aiohttp.ClientSession) -> None:
    path = agent.tmp / "model.skops"
    path.write_bytes(CONTENT)
    async with local.post("/local/blobs", json={"path": str(path)}) as response:
        answer = await response.json()
    assert len(answer["holders"]) == 2
    assert agent.flock.keepers(answer["digest"]) == set(answer["holders"])
    assert not path.exists()


async def test_only_files_of_the_folder_are_adopted(agent: Agent, local: aiohttp.ClientSession, tmp_path: Path) -> None:
    secret = tmp_path / "key.pem"
    secret.write_text("secret")
    link = agent.tmp / "link"
    link.symlink_to(secret)
    for path in (secret, link, agent.tmp / ".." / "key.pem", agent.tmp / "none"):
        async with local.post("/local/blobs", json={"path": str(path)}) as response:
            assert response.status == 400
    assert secret.read_text() == "secret"


async def test_too_few_disks_for_a_childs_file(agent: Agent, local: aiohttp.ClientSession) -> None:
    for other in agent.flock.nodes[1:]:
        await other.stop()
    path = agent.tmp / "model.skops"
    path.write_bytes(CONTENT)
    async with local.post("/local/blobs", json={"path": str(path)}) as response:
        assert (response.status, (await response.json())["code"]) == (503, "not_durable")


# ---------------------------------------------------------------- reports
async def test_fronts_hear_of_one_another(local: aiohttp.ClientSession) -> None:
    async def report(pid: int, requests: int) -> StatsReply:
        rows = (ModelStats("iris", 1, requests=requests, histogram={5: requests}),)
        body = msgspec.msgpack.encode(StatsReport(pid, rows))
        async with local.post("/local/stats", data=body) as response:
            return msgspec.msgpack.decode(await response.read(), type=StatsReply)

    assert (await report(1, 10)).others == ()
    assert [row.requests for row in (await report(2, 5)).others] == [10]
    assert [row.requests for row in (await report(1, 12)).others] == [5]


async def test_the_trainer_reports(agent: Agent, local: aiohttp.ClientSession) -> None:
    await agent.flock.log.propose(BeginEpoch(1, agent.flock.first.id), actor="test")
    report = TrainerReport(1, 3, 6.0, 2.0, "ray")
    async with local.post("/local/trainer", data=msgspec.msgpack.encode(report)) as response:
        assert response.status == 204
    assert agent.telemetry.trainer() == report
    async with local.post("/local/trainer", data=b"junk") as response:
        assert response.status == 400


async def test_the_trainer_tells_how_far_its_fits_are(agent: Agent, local: aiohttp.ClientSession) -> None:
    point = CurvePoint(3, "validation", "loss", 0.5, 1.5)
    report = LiveReport(1, (FitNews("job-1", "0.2", 4, (point,)),))
    async with local.post("/local/live", data=msgspec.msgpack.encode(report)) as response:
        assert response.status == 204
    shown = msgspec.json.decode(agent.flock.first.live.read("job-1"), type=LiveJob)
    assert [(fit.candidate, fit.fold, fit.series[0].value) for fit in shown.fits] == [("0.2", 4, [0.5])]
    async with local.post("/local/live", data=b"junk") as response:
        assert response.status == 400
