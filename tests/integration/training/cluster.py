"""A cluster of one node for the trainer's tests: the real log rules, the real blob store, the real local API on a
real Unix socket; only consensus and peers are those in memory."""

import asyncio
import contextlib
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from consensus.levels import LEVEL
from consensus.messages import (
    AddDatasetVersion,
    BeginEpoch,
    HeldBlob,
    JoinMember,
    NameCluster,
    RaiseLevel,
    SealJob,
    SubmitJob,
)
from consensus.queries import current_version
from consensus.state import CandidateId, DatasetVersion, Digest, Job, JobId, Json, Member, NodeId, Part
from node.blobs.store import BlobStore
from node.local.api import LocalApi, serve
from node.local.serving_view import ViewBuilder
from node.local.view_feed import ViewFeed
from node.telemetry.live import LiveFits
from parvada.schema import DatasetRef, JobSpec
from serving.stats import StatsReply, StatsReport
from tests.support.memory_log import MemoryNetwork
from training import archive
from training.ingest import IngestOptions, ingest
from training.inline import InlineExecutor
from training.ports import TrainerReport
from training.spec import resolve_job
from training.trainer import Trainer
from training.trainer_link import TrainerLink

ME = NodeId("a" * 32)
ADMINS = ("a" * 64,)


class Alone:
    """Peers of a node that has none, and the ear for its trainer's reports."""

    def __init__(self) -> None:
        self.reports: list[TrainerReport] = []
        self.silent = False

    async def fetch(self, digest: Digest, holders: Sequence[NodeId]) -> None:
        if self.silent:
            await asyncio.Event().wait()
        raise AssertionError(f"blob {digest} should be here")

    async def store_durably(self, digest: Digest) -> tuple[NodeId, ...]:
        return (ME,)

    def accept_stats(self, report: StatsReport) -> StatsReply:
        raise AssertionError("the trainer sends no statistics")

    def accept_trainer(self, report: TrainerReport) -> None:
        self.reports.append(report)


class OneNode:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.network = MemoryNetwork([ME])
        self.log = self.network.logs[ME]
        self.blobs = BlobStore(root / "blobs")
        self.alone = Alone()
        self.live = LiveFits()
        self.tmp = root / "tmp"
        self._run = tempfile.TemporaryDirectory()  # a short path: the name of a socket has at most 107 bytes
        self.socket = Path(self._run.name) / "run" / "agent.sock"
        self._runner: web.AppRunner | None = None

    @property
    def environment(self) -> dict[str, str]:
        """By which its children find it."""
        return {"PARVADA_LOCAL_SOCKET": str(self.socket), "PARVADA_TMP": str(self.tmp)}

    async def start(self) -> None:
        self.tmp.mkdir(parents=True)
        self.blobs.open()
        await self.log.start()
        member = Member(ME, "n1", ("127.0.0.1",), 1, 2, 3, 2, "0", 0.0, level=LEVEL)
        await self.propose(NameCluster("c", "test"), JoinMember(member), RaiseLevel(LEVEL), BeginEpoch(1, ME))
        views = ViewFeed(self.log, ViewBuilder(ME, "writes", lambda: ADMINS))
        api = LocalApi(self.log, views, self.blobs, self.alone, self.alone, self.alone, self.tmp, self.live)
        app = web.Application()
        app.add_routes(api.routes())
        app.on_shutdown.append(api.end_streams)
        self._runner = await serve(app, self.socket)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
        await self.log.stop()
        self._run.cleanup()

    async def propose(self, *commands: object) -> None:
        for command in commands:
            await self.log.propose(command, actor="test")  # type: ignore[arg-type]

    async def add_dataset(self, name: str, content: str, **options: str) -> DatasetVersion:
        folder = self.root / f"in-{secrets.token_hex(4)}"
        folder.mkdir()
        (folder / "file").write_text(content)
        result = await asyncio.to_thread(ingest, str(folder / "file"), IngestOptions(out_dir=str(folder), **options))  # type: ignore[arg-type]
        parts, held = [], []
        for part in result.parts:
            stored = await self.blobs.adopt(Path(part.path))
            assert stored.digest == part.digest
            parts.append(Part(stored.digest, part.rows, part.bytes))
            held.append(HeldBlob(stored.digest, part.bytes, (ME,)))
        detail = Json(msgspec.json.encode(result.detail))
        await self.propose(
            AddDatasetVersion(
                name,
                result.digest,
                result.rows,
                result.bytes,
                tuple(parts),
                result.target,
                result.task,
                detail,
                tuple(held),
            )
        )
        version = current_version(self.log.state, name)
        assert version is not None
        return version

    async def submit(self, spec: JobSpec, job: str, *, tallied: bool = True) -> JobId:
        names = [ref.name if isinstance(ref, DatasetRef) else ref for ref in spec.datasets]
        versions = [current_version(self.log.state, name) for name in names]
        resolved = resolve_job(spec, [version for version in versions if version is not None], tallied)
        encoded = Json(msgspec.json.encode(spec))
        await self.propose(SubmitJob(JobId(job), spec.name, encoded, resolved.units, resolved.candidates))
        return JobId(job)

    async def seal(self, job: JobId, keep: tuple[CandidateId, ...] | None = None) -> None:
        """As the archivist does."""
        found, out = self.job(job), self.root / f"{secrets.token_hex(4)}.arrow"
        segments = [str(self.blobs.path(digest)) for digest in found.segments]
        earlier = str(self.blobs.path(found.results)) if found.results else ""
        sealed = await asyncio.to_thread(archive.seal, found, segments, earlier, str(out))
        assert sealed.lost == 0
        await self._sealed(job, out, sealed.keep if keep is None else keep)

    async def keep_results(self, job: JobId, content: bytes) -> None:
        """Seal the job with a file of that content, whatever it is."""
        out = self.root / f"{secrets.token_hex(4)}.arrow"
        out.write_bytes(content)
        await self._sealed(job, out, ())

    async def _sealed(self, job: JobId, path: Path, keep: tuple[CandidateId, ...]) -> None:
        stored = await self.blobs.adopt(path)
        results = HeldBlob(stored.digest, stored.bytes, (ME,))
        await self.propose(SealJob(job, self.job(job).ended_at, results, keep))

    def read(self, digest: Digest) -> bytes:
        return self.blobs.path(digest).read_bytes()

    def job(self, job: JobId) -> Job:
        return self.log.state.jobs[job]

    async def wait_for(self, true: Callable[[], bool], seconds: float = 150.0) -> None:
        """Poll until `true()`; raises TimeoutError."""
        until = time.monotonic() + seconds
        while not true():
            if time.monotonic() > until:
                raise TimeoutError(f"not true within {seconds:g} s: {self.log.state.jobs}")
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def one_node(root: Path) -> AsyncIterator[OneNode]:
    """What is started meanwhile finds the node as its own children do."""
    node = OneNode(root)
    await node.start()
    try:
        with pytest.MonkeyPatch.context() as environment:
            for name, value in node.environment.items():
                environment.setenv(name, value)
            yield node
    finally:
        await node.stop()


@contextlib.asynccontextmanager
async def trainer(
    node: OneNode, epoch: int, executor: InlineExecutor | None = None
) -> AsyncIterator[asyncio.Task[None]]:
    """The trainer of `epoch`, running in this process, its folds in processes of their own."""
    link = TrainerLink(str(node.socket))
    await link.start()
    task = asyncio.create_task(
        Trainer(link, executor or InlineExecutor(1), epoch, node.tmp, "inline").run(), name=f"trainer-{epoch}"
    )
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=15)
        await link.stop()
