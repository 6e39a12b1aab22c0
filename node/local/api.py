"""The agent's side of its Unix socket: what fronts, trainer and nobody else may ask of it.

Its wire is `parvada.local`. The same socket carries the client API, which fronts pass on from port 8080. So a request
that came through a front (it has `FRONT_HEADER`) never reaches the calls here.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from aiohttp import web

from consensus.codec import CodecError, decode_command, encode_entry, encode_state
from consensus.ports import Batch, CommandRejected, CommandTooLarge, Log, NoQuorum, Resync
from consensus.queries import available_holders
from consensus.state import CommandId, Digest, NodeId
from node import logs
from node.blobs.distribute import NotDurable
from node.blobs.room import DiskFull
from node.blobs.store import BlobStore
from node.local.view_feed import ViewFeed
from node.peering.words import PeerError
from parvada.identifiers import is_digest
from parvada.local import (
    ACTOR_HEADER,
    BLOBS,
    COMMAND_HEADER,
    FRONT_HEADER,
    LIVE,
    LOG,
    PROPOSE,
    STATS,
    TRAINER,
    VIEW,
    AdoptRequest,
    EntryFrame,
    LocalBlob,
    Proposed,
    StateFrame,
    StoredBlob,
    blob_path,
    log_frame,
)
from parvada.refusals import problem
from serving.stats import StatsReply, StatsReport
from training.ports import LiveReport, TrainerReport

log = logs.get("node.local.api")

PROPOSE_SECONDS = 10.0
LOOK_SECONDS = 5.0
"""Without entries, how often to look whether the reader is still there."""
STOP_SECONDS = 0.2
"""For calls under way when the socket closes: by then the children that made them have ended."""
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Fetcher(Protocol):
    async def fetch(self, digest: Digest, holders: Sequence[NodeId]) -> None: ...


class Distributor(Protocol):
    async def store_durably(self, digest: Digest) -> tuple[NodeId, ...]: ...


class Reports(Protocol):
    """What is needed of `node.telemetry.telemetry.Telemetry`."""

    def accept_stats(self, report: StatsReport) -> StatsReply: ...

    def accept_trainer(self, report: TrainerReport) -> None: ...


class Live(Protocol):
    """What is needed of `node.telemetry.live.LiveFits`."""

    def accept(self, report: LiveReport) -> None: ...


class LocalApi:
    """`routes` go into the agent's application. `tmp` is the folder in which children make files to be adopted."""

    def __init__(
        self,
        log: Log,
        views: ViewFeed,
        blobs: BlobStore,
        fetcher: Fetcher,
        distributor: Distributor,
        reports: Reports,
        tmp: Path,
        live: Live,
    ) -> None:
        self._log, self._views, self._blobs = log, views, blobs
        self._fetcher, self._distributor, self._reports, self._tmp = fetcher, distributor, reports, tmp
        self._live = live
        self._streams: set[asyncio.Task[object]] = set()

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(VIEW, _private(self._view)),
            web.get(LOG, _private(self._entries)),
            web.post(PROPOSE, _private(self._propose)),
            web.get(blob_path("{digest}"), _private(self._blob)),
            web.post(BLOBS, _private(self._adopt)),
            web.post(STATS, _private(self._stats)),
            web.post(TRAINER, _private(self._trainer)),
            web.post(LIVE, _private(self._fits)),
        ]

    async def end_streams(self, _: web.Application) -> None:
        """For `Application.on_shutdown`: streams would never end by themselves, and hold up the stop."""
        for task in self._streams:
            task.cancel()

    # ------------------------------------------------------------ streams
    @contextlib.asynccontextmanager
    async def _stream(self, request: web.Request) -> AsyncIterator[web.StreamResponse]:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        task = asyncio.current_task()
        await response.prepare(request)
        if task is not None:
            self._streams.add(task)
        try:
            yield response
        finally:
            self._streams.difference_update([task])

    async def _view(self, request: web.Request) -> web.StreamResponse:
        async with self._stream(request) as response:
            async for view in self._views.frames():
                await response.write(view)
        return response

    async def _entries(self, request: web.Request) -> web.StreamResponse:
        """A snapshot, then every entry. Ends when the reader lags so far that it must start anew."""
        entries = self._log.subscribe()
        began = False
        async with self._stream(request) as response:
            while (item := await _next(entries, request)) is not None:
                if isinstance(item, Batch):
                    await response.write(_entry_frames(item))
                elif began:
                    break
                else:
                    began = True
                    snapshot = await asyncio.to_thread(encode_state, item.state)
                    await response.write(log_frame(StateFrame(snapshot)))
        return response

    # ------------------------------------------------------------ log
    async def _propose(self, request: web.Request) -> web.Response:
        try:
            command = decode_command(await request.read())
        except CodecError as error:
            return problem(400, "invalid", f"this is no command: {error}")
        identity = request.headers.get(COMMAND_HEADER)
        try:
            done = await self._log.propose(
                command,
                actor=request.headers.get(ACTOR_HEADER, "local"),
                command_id=CommandId(identity) if identity else None,
                timeout=PROPOSE_SECONDS,
            )
        except CommandRejected as error:
            return problem(409, error.code, error.reason)
        except CommandTooLarge as error:
            return problem(413, "too_large", str(error))
        except NoQuorum as error:
            return problem(503, "no_quorum", str(error))
        return _answer(Proposed(done.index, msgspec.Raw(done.outcome.value or b"{}")))

    # ------------------------------------------------------------ blobs
    async def _blob(self, request: web.Request) -> web.Response:
        text = request.match_info["digest"]
        if not is_digest(text):
            return problem(400, "invalid", f"{text[:80]!r} is not a SHA-256 digest")
        digest = Digest(text)
        try:
            await self.make_present(digest)
        except PeerError as error:
            return problem(404, "not_found", str(error))
        except DiskFull as error:
            return problem(507, "disk_full", str(error))
        return _answer(LocalBlob(str(self._blobs.path(digest)), self._blobs.size(digest)))

    async def make_present(self, digest: Digest) -> Path:
        """The path of the blob, checked against its digest, fetched if it is not here. Raises PeerError, DiskFull."""
        self._blobs.touch(digest)  # a spare copy must not go between this answer and its use
        if not self._blobs.has(digest) or not await self._blobs.verify(digest):
            connected = frozenset(self._log.status.connected)
            holders = available_holders(self._log.state, digest)
            await self._fetcher.fetch(digest, sorted(holders, key=lambda node: node not in connected))
        return self._blobs.path(digest)

    async def _adopt(self, request: web.Request) -> web.Response:
        try:
            path = Path(msgspec.json.decode(await request.read(), type=AdoptRequest).path)
        except msgspec.MsgspecError as error:
            return problem(400, "invalid", str(error))
        if not await asyncio.to_thread(_is_file_in, path, self._tmp):
            return problem(400, "invalid", f"{path} is not a file in {self._tmp}")
        try:
            stored = await self._blobs.adopt(path)
            holders = await self._distributor.store_durably(stored.digest)
        except DiskFull as error:
            return problem(507, "disk_full", str(error))
        except NotDurable as error:
            return problem(503, "not_durable", str(error))
        return _answer(StoredBlob(stored.digest, stored.bytes, holders))

    # ------------------------------------------------------------ reports
    async def _stats(self, request: web.Request) -> web.Response:
        try:
            report = msgspec.msgpack.decode(await request.read(), type=StatsReport)
        except msgspec.MsgspecError as error:
            return problem(400, "invalid", str(error))
        return web.Response(body=msgspec.msgpack.encode(self._reports.accept_stats(report)))

    async def _trainer(self, request: web.Request) -> web.Response:
        try:
            self._reports.accept_trainer(msgspec.msgpack.decode(await request.read(), type=TrainerReport))
        except msgspec.MsgspecError as error:
            return problem(400, "invalid", str(error))
        return web.Response(status=204)

    async def _fits(self, request: web.Request) -> web.Response:
        try:
            self._live.accept(msgspec.msgpack.decode(await request.read(), type=LiveReport))
        except msgspec.MsgspecError as error:
            return problem(400, "invalid", str(error))
        return web.Response(status=204)


async def serve(app: web.Application, socket: Path) -> web.AppRunner:
    """Serve `app` on a Unix socket that only this user reaches; `cleanup` the runner to stop."""
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    await asyncio.to_thread(socket.parent.chmod, 0o700)
    # Bodies stay as they came: an upload is unpacked in the workshop, not by this event loop.
    runner = web.AppRunner(
        app, access_log=None, handle_signals=False, auto_decompress=False, shutdown_timeout=STOP_SECONDS
    )
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    await asyncio.to_thread(os.chmod, socket, 0o600)
    return runner


def _private(handler: Handler) -> Handler:
    async def checked(request: web.Request) -> web.StreamResponse:
        if FRONT_HEADER in request.headers:
            log.warning("local.refused", path=request.path, front=request.headers[FRONT_HEADER])
            return problem(404, "unknown_path", f"There is nothing at {request.path}")
        return await handler(request)

    return checked


async def _next(entries: AsyncIterator[Batch | Resync], request: web.Request) -> Batch | Resync | None:
    """The next item; None once the log is closed or the reader has gone, which aiohttp does not tell by itself."""
    while True:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await anext(entries)
        except StopAsyncIteration:
            return None
        except TimeoutError:
            if request.transport is None or request.transport.is_closing():
                return None


def _entry_frames(batch: Batch) -> bytes:
    return b"".join(log_frame(EntryFrame(index, encode_entry(entry))) for index, entry in batch.entries)


def _answer(body: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


def _is_file_in(path: Path, folder: Path) -> bool:
    """Also through symbolic links: they must not lead out of the folder."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())
