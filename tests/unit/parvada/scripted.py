"""A real HTTP server on loopback that answers from a script: clients, CLI and TUI are tested against it."""

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self

import msgspec
from aiohttp import web


class Seen(msgspec.Struct, frozen=True):
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    pairs: tuple[tuple[str, str], ...] = ()
    """The query with what is repeated in it."""


class Answer(msgspec.Struct, frozen=True):
    status: int = 200
    value: Any = None
    headers: dict[str, str] = {}
    drop: bool = False
    """Break the connection instead of answering."""
    stall: bool = False
    """Never answer, as a paused process does."""
    drop_after: bool = False
    """Send the body, and break the connection where its announced length would go on."""


Script = Callable[[Seen], Answer]


def problem(status: int, code: str, error: str = "no", **details: Any) -> Answer:
    return Answer(status, {"error": error, "code": code, "details": details})


def from_table(table: Mapping[str, Any]) -> Script:
    """A script from `"GET /path"` to an `Answer`, a value or a callable."""

    def script(seen: Seen) -> Answer:
        found = table.get(f"{seen.method} {seen.path}", problem(404, "not_found", f"{seen.path} is not scripted"))
        found = found(seen) if callable(found) else found
        return found if isinstance(found, Answer) else Answer(200, found)

    return script


class ScriptedNode:
    """One node on its own thread and loop; `stop` breaks all its connections at once, as a kill does."""

    def __init__(self, script: Script, name: str = "n1", port: int = 0) -> None:
        self.script = script
        self.name = name
        self.port = port
        self.seen: list[Seen] = []
        self.events: list[bytes] = []
        """Blocks that an event stream sends; it then stays open."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"scripted-{name}")
        self._ready = threading.Event()
        self._stopping: asyncio.Event

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(10)
            assert not self._thread.is_alive()

    def calls(self, method: str, path: str) -> list[Seen]:
        return [seen for seen in self.seen if (seen.method, seen.path) == (method, path)]

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
            self._loop.run_until_complete(_let_go())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        self._stopping = asyncio.Event()
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.01, access_log=None, handler_cancellation=True)
        await runner.setup()
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        await web.SockSite(runner, listener).start()
        self._ready.set()
        await self._stopping.wait()
        # A connection that has been accepted but not made yet when its server is closed is lost by asyncio (its
        # transport fails half built, in `Server._attach`, and nobody closes it): make them all, and accept no more.
        self._loop.remove_reader(listener)
        await _turns()
        await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        pairs = tuple(request.query.items())
        seen = Seen(request.method, request.path, dict(request.query), headers, await request.read(), pairs)
        self.seen.append(seen)
        answer = self.script(seen)
        if answer.stall:
            await self._stopping.wait()
        if answer.drop and request.transport is not None:
            request.transport.abort()
        if seen.path == "/v1/events" and answer.status == 200:
            return await self._stream(request)
        body = answer.value if isinstance(answer.value, bytes) else msgspec.json.encode(answer.value)
        if answer.drop_after and request.transport is not None:
            return await self._half(request, answer, body)
        return web.Response(
            status=answer.status,
            body=body,
            content_type="application/json",
            headers={"x-parvada-node": self.name, **answer.headers},
        )

    async def _half(self, request: web.Request, answer: Answer, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        await response.prepare(request)
        await response.write(body)
        assert request.transport is not None
        request.transport.close()
        return response

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        since = int(request.query.get("since", "0"))
        for block in self.events:
            if not block.startswith(b"id: ") or int(block[4 : block.index(b"\n")]) > since:
                await response.write(block)
        await self._stopping.wait()
        return response


async def _turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def _let_go() -> None:
    """End what is left in the loop: a socket of which nobody hears any more would be a warning, and so a failure."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
    await break_off()


async def break_off() -> None:
    """Every connection of this loop: one whose other end does not read any more would wait for ever to close."""
    open_ones: Mapping[int, asyncio.WriteTransport] = asyncio.get_running_loop()._transports  # type: ignore[attr-defined]
    for transport in list(open_ones.values()):
        transport.abort()
    await _turns()


def event_block(index: int, kind: str = "job.submitted", subject: str = "j1", **detail: Any) -> bytes:
    data = {"index": index, "at": "2026-11-22T12:00:00Z", "kind": kind, "subject": subject, "detail": detail}
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (index, kind.encode(), msgspec.json.encode(data))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
