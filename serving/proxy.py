"""Passes every call that a front does not answer itself to the agent, streaming both ways, byte for byte."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from parvada.local import FIRST_SEGMENT, FRONT_HEADER
from parvada.local_calls import AGENT
from parvada.refusals import problem

log = logging.getLogger(__name__)

PASSED: Final = web.RequestKey("passed", bool)
"""Set on a request whose answer is the agent's."""

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS: Final = frozenset({FRONT_HEADER, "x-forwarded-for", "x-forwarded-host", "forwarded", "host", "expect"})
"""Set here or not at all: nobody outside may speak for a front."""
_ENDLESS: Final = ("text/event-stream", "application/x-ndjson")


def is_private(raw_path: str) -> bool:
    """Whether a path, however it is spelt, could reach the calls that are for the agent's children. Refuses
    more than it must: percent-encoding is undone to the end, dots and empty segments never pass as such."""
    path = raw_path
    while (plain := unquote(path)) != path:
        path = plain
    segments = [s for s in path.replace("\\", "/").split("/") if s not in ("", ".")]
    return ".." in segments or (bool(segments) and segments[0].strip().lower() == FIRST_SEGMENT)


def _kept(headers: "CIMultiDict[str]", dropped: frozenset[str]) -> "CIMultiDict[str]":
    """Without hop-by-hop headers, those that `Connection` names among them."""
    named = {name.strip().lower() for value in headers.getall("connection", []) for name in value.split(",")}
    gone = _HOP_BY_HOP | dropped | named
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in gone)


class Proxy:
    """One front's way to the agent. `close` ends the streams that would never end by themselves."""

    def __init__(self, session: Callable[[], aiohttp.ClientSession], front: str) -> None:
        self._session = session
        self._front = front
        self._running: set[asyncio.Task[object]] = set()

    def close(self) -> None:
        """Cut event streams: their clients resume on another front or node."""
        for task in self._running:
            task.cancel()

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        """The agent's answer; 503 if it is away before it has begun to answer. If it goes away later, the
        connection is cut, so that nobody takes half an answer for a whole one."""
        if is_private(request.rel_url.raw_path):
            return problem(404, "unknown_path", f"There is nothing at {request.path}")
        request[PASSED] = True
        try:
            upstream = await self._send(request)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.debug("proxy.no_agent reason=%s", error)
            request[PASSED] = False
            return problem(503, "agent_away", "This node's agent does not answer just now; predictions go on")
        try:
            return await self._relay(request, upstream)
        finally:
            upstream.close()

    async def _send(self, request: web.Request) -> aiohttp.ClientResponse:
        headers = _kept(CIMultiDict(request.headers), _OURS)
        headers[FRONT_HEADER] = self._front
        headers[hdrs.HOST] = request.host
        if request.remote:
            headers["x-forwarded-for"] = request.remote
        path = "/" + request.rel_url.raw_path.lstrip("/")
        url = AGENT.join(URL.build(path=path, query_string=request.rel_url.raw_query_string, encoded=True))
        body = request.content if request.body_exists else None
        return await self._session().request(request.method, url, headers=headers, data=body, allow_redirects=False)

    async def _relay(self, request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        response = web.StreamResponse(
            status=upstream.status, reason=upstream.reason, headers=_kept(CIMultiDict(upstream.headers), frozenset())
        )
        task = asyncio.current_task()
        if upstream.content_type in _ENDLESS and task is not None:
            self._running.add(task)
        try:
            await response.prepare(request)
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        except (aiohttp.ClientError, OSError, asyncio.CancelledError) as error:
            _cut(request)
            if isinstance(error, asyncio.CancelledError):
                raise
            log.info("proxy.cut path=%s reason=%s", request.path, error)
        finally:
            if task is not None:
                self._running.discard(task)
        return response


def _cut(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
