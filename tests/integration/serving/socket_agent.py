"""The agent's side of the Unix socket for tests of a front: a real server with a real view and real model files.

It runs in a thread of its own, so that tests can be plain functions and the front a real process.
"""

import asyncio
import hashlib
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from aiohttp import web

from serving.stats import StatsReply, StatsReport
from serving.view import ServingView, encode_view


class SocketAgent:
    """`start` and `stop` at will: the socket's path stays the same."""

    def __init__(self, path: Path, view: ServingView, files: dict[str, Path]) -> None:
        self.path = path
        self.view = view
        self.files = files
        self.reports: dict[int, StatsReport] = {}
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="agent")
        self._runner: web.AppRunner | None = None
        self._changed = asyncio.Event()

    def __enter__(self) -> "SocketAgent":
        self._thread.start()
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._call(self._cancel_rest())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def start(self) -> None:
        self._call(self._start())

    def stop(self) -> None:
        """Gone as if killed: connections break, the socket refuses."""
        self._call(self._stop())

    def show(self, view: ServingView) -> None:
        """A change of the registry."""
        self._call(self._show(view))

    def _call(self, coroutine: Any) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)

    async def _cancel_rest(self) -> None:
        """Streams whose front is gone still wait for their next write."""
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _show(self, view: ServingView) -> None:
        self.view = view
        self._changed.set()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/local/view", self._stream)
        app.router.add_get("/local/blobs/{digest}", self._blob)
        app.router.add_post("/local/stats", self._stats)
        app.router.add_get("/v1/events", self._events)
        app.router.add_get("/v1/broken", self._broken)
        app.router.add_route("*", "/{path:.*}", self._echo)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01, auto_decompress=False)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()

    async def _stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(encode_view(self.view))
            self._changed.clear()
            try:
                async with asyncio.timeout(1):
                    await self._changed.wait()
            except TimeoutError:
                continue

    async def _blob(self, request: web.Request) -> web.Response:
        path = self.files.get(request.match_info["digest"])
        if path is None:
            return web.json_response({"error": "no holder", "code": "unknown_blob"}, status=404)
        return web.json_response({"path": str(path), "bytes": path.stat().st_size})

    async def _stats(self, request: web.Request) -> web.Response:
        report = msgspec.msgpack.decode(await request.read(), type=StatsReport)
        self.reports[report.pid] = report
        others = tuple(row for pid, other in self.reports.items() if pid != report.pid for row in other.models)
        return web.Response(body=msgspec.msgpack.encode(StatsReply(others)))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"id: 1\ndata: first\n\n")
        await asyncio.Event().wait()
        return response

    async def _broken(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _echo(self, request: web.Request) -> web.Response:
        hasher, size = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            hasher.update(chunk)
            size += len(chunk)
        return web.json_response(
            {
                "method": request.method,
                "path": request.raw_path,
                "bytes": size,
                "sha256": hasher.hexdigest(),
                "headers": {name.lower(): value for name, value in request.headers.items()},
            },
            status=int(request.query.get("status", "200")),
            headers={"x-parvada-index": "12", "Connection": "x-secret-hop", "x-secret-hop": "1"},
        )
