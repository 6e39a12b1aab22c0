"""The client API of one of three nodes, on a real server: real log rules, stores, wires between the nodes and parsing.
Only the log is its in-memory twin, and the workshop works in a thread."""

import asyncio
import contextlib
import hashlib
import io
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from immutables import Map
from msgspec.structs import replace

from consensus.messages import Barrier, CreateToken, NameCluster
from consensus.state import ClusterState, Role
from node.http.app import make_app
from node.http.context import Ports, Settings
from node.identity.keyring import Keyring
from node.identity.pki import NodeKey
from node.identity.ring import RingStore
from node.jobs.results import Results
from node.local.api import LocalApi, serve
from node.local.serving_view import ViewBuilder
from node.local.view_feed import ViewFeed
from node.membership.leadership import Leadership
from node.membership.manager import Membership
from node.membership.rotation import Rotator
from node.membership.voters import Limits
from node.telemetry.telemetry import Telemetry
from tests.unit.node.cluster import Flock, flock, loop_time
from training.errors import TaskFailed
from training.pool_worker import HEADER_BYTES, Call, Returned, pack, run, unpack

ADMIN = "pvd_admin"
SECRET = b"of 32 bytes, and of no node here"
ROLES = ("viewer", "predictor", "operator", "admin")
MAX_UPLOAD_BYTES = 1024 * 1024


class ThreadWorkshop:
    """The workshop's twin: the same worker, its frames included, in a thread instead of a process."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def run(self, function: str, *args: Any, seconds: float | None = None) -> Any:
        self.calls.append(function)
        answer = await asyncio.to_thread(_work, function, args)
        if isinstance(answer, Returned):
            return answer.value
        raise answer.error or TaskFailed(answer.text)


def _work(function: str, args: tuple[Any, ...]) -> Any:
    call = unpack(pack(Call(function, args))[HEADER_BYTES:])
    return unpack(pack(run(call))[HEADER_BYTES:])


class Answer(msgspec.Struct, frozen=True):
    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.raw)

    @property
    def problem(self) -> tuple[int, str]:
        """Status and code; fails unless it is a complete problem with a sentence."""
        body = self.json
        assert self.status >= 400, body
        assert set(body) == {"error", "code", "details"}
        assert len(body["error"]) > 10
        assert "Traceback" not in body["error"]
        assert self.headers["Content-Type"].startswith("application/json")
        return self.status, body["code"]


class World:
    """`call` speaks as the admin unless told otherwise."""

    def __init__(self, flock: Flock, tmp: Path, url: str, session: aiohttp.ClientSession, ports: Ports) -> None:
        self.flock, self.tmp, self.url, self.session, self.ports = flock, tmp, url, session, ports
        self.log = flock.log

    @property
    def state(self) -> ClusterState:
        return self.log.state

    async def call(
        self,
        method: str,
        path: str,
        *,
        role: str | None = "admin",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        every = {**({"Authorization": f"Bearer {token(role)}"} if role else {}), **(headers or {})}
        async with self.session.request(method, self.url + path, headers=every, **more) as response:
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str) -> Any:
        """The JSON of an answer that must be a good one."""
        answer = await self.call("GET", path)
        assert answer.status == 200, answer.raw
        return answer.json

    async def upload(self, name: str, body: bytes | str | AsyncIterator[bytes], query: str = "", **more: Any) -> Answer:
        data = io.BytesIO(body.encode() if isinstance(body, str) else body) if isinstance(body, bytes | str) else body
        return await self.call("PUT", f"/v1/datasets/{name}{query}", data=data, **more)

    def trace(self) -> tuple[object, ...]:
        """All that a refused call must leave as it was: facts, blobs on every disk, files. Not the length of the log:
        a barrier, by which a node makes sure that there is no such thing, changes no fact."""
        state = replace(self.log.state, index=0, recent=Map(), recent_before=Map())
        told = tuple(entry for _, entry in self.flock.network.committed if not isinstance(entry.command, Barrier))
        disks = tuple(node.blobs.digests() for node in self.flock.nodes)
        return state, len(told), disks, tuple(sorted(self.tmp.rglob("*")))

    def cut_off(self) -> contextlib.AbstractContextManager[None]:
        """This node without the other two, and so without a quorum."""
        return _cut_off(self.flock)


@contextlib.contextmanager
def _cut_off(flock: Flock) -> Any:
    flock.network.partition({flock.first.id}, {node.id for node in flock.nodes[1:]})
    try:
        yield
    finally:
        flock.network.heal()


def token(role: str) -> str:
    return ADMIN if role == "admin" else f"pvt_{role}"


@contextlib.asynccontextmanager
async def world(folder: Path, auth: Any = "writes", max_upload_bytes: int = MAX_UPLOAD_BYTES) -> AsyncIterator[World]:
    async with flock(folder, 3) as three:
        await three.log.propose(NameCluster("c0ffee", "test"), actor="test")
        for role in ROLES[:-1]:
            digest = hashlib.sha256(token(role).encode()).hexdigest()
            await three.log.propose(CreateToken(f"t-{role}", role, Role(role), digest), actor="test")
        tmp = folder / "tmp"
        tmp.mkdir()
        ports, local = _ports(three, folder, tmp, auth, max_upload_bytes)
        app = make_app(ports, local.routes(), loop_time)
        app.on_shutdown.append(local.end_streams)
        run = Path(tempfile.mkdtemp())
        runner = await serve(app, run / "agent.sock")
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[-1][:2]
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=600)) as session:
                yield World(three, tmp, f"http://{host}:{port}", session, ports)
        finally:
            await runner.cleanup()
            shutil.rmtree(run)


def _ports(three: Flock, folder: Path, tmp: Path, auth: Any, max_upload_bytes: int) -> tuple[Ports, LocalApi]:
    me, log = three.first, three.log
    admins = (hashlib.sha256(ADMIN.encode()).hexdigest(),)
    telemetry = Telemetry(me.id, "node-0", "0.1.0", log, me.blobs, folder, sessions=lambda: (), owed=lambda: 0)
    membership = Membership(log, Limits(max_voters=5, promote_after=60.0, away_after=60.0), loop_time)
    three.tasks.start(membership.run(), "membership")
    leadership = Leadership(me.peers, log, membership, loop_time)
    distributor = three.distributors[me.id]
    local = LocalApi(
        log,
        ViewFeed(log, ViewBuilder(me.id, auth, lambda: admins)),
        me.blobs,
        me.transfer,
        distributor,
        telemetry,
        tmp,
        me.live,
    )
    rotation = _rotation(three, folder)
    settings = Settings(
        node=me.id,
        auth=auth,
        admin_sha256s=lambda: admins,
        tmp=tmp,
        token_seeds=lambda: (b"seed",),
        max_upload_bytes=max_upload_bytes,
        formation="volume",
        mode="inline",
        copies=3,
    )
    removed = asyncio.Event()
    workshop = ThreadWorkshop()
    ports = Ports(
        log=log,
        workshop=workshop,
        blobs=me.blobs,
        distributor=distributor,
        fetcher=local,
        results=Results(local.make_present, workshop),
        telemetry=telemetry,
        leadership=leadership,
        rotation=rotation,
        settings=settings,
        removed=removed,
        live=me.live,
        peers=me.peers,
    )
    return ports, local


def _rotation(three: Flock, folder: Path) -> Rotator:
    """With a secret of its own: who is who in this world does not follow from it."""
    slot = folder / "rotation"
    slot.mkdir()
    secret = slot / "secret"
    secret.write_text(SECRET.hex())
    secret.chmod(0o600)
    keyring = Keyring(RingStore(slot, secret, owned=True), NodeKey.generate(), ["127.0.0.1"])
    return Rotator(three.first.id, keyring, three.first.peers, three.log, None, three.first.peers.renew)
