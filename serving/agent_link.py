"""The front's end of the agent's Unix socket: follows the view, finds model files, hands in statistics.

The last view is kept while the agent is silent: a front goes on answering from it and says how old it is.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from serving.errors import NotReady
from serving.stats import StatsReply, StatsReport
from serving.view import FRAME_HEADER_BYTES, MAX_FRAME_BYTES, ServingView, decode_view

log = logging.getLogger(__name__)

AGENT = URL("http://agent")
"""A placeholder host: the connector dials the socket whatever the name."""
SILENCE_SECONDS = 3.0
"""The agent speaks at least each second; after this long it counts as silent."""
_FRAME_SECONDS = 10.0
_CALL_SECONDS = 5.0
_FETCH_SECONDS = 120.0
"""Bringing a large model from another node takes its time."""
_MAX_CONNECTIONS = 512
_BACKOFF_SECONDS = (0.05, 1.0)
_AGENT_ERRORS = (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError)
"""The agent is away, broke off, or said something that cannot be read."""


class _Blob(msgspec.Struct):
    path: str
    bytes: int


class AgentLink:
    """Started by running `follow`; `session` is also the proxy's way to the agent."""

    def __init__(
        self,
        socket: Path,
        on_view: Callable[[ServingView], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._socket = socket
        self._on_view = on_view
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None
        self._heard = 0.0
        self._connected = False
        self._paths: dict[str, Path] = {}
        self.view: ServingView | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """Made on first use, inside the running loop. Bodies are passed as they are, never decompressed."""
        if self._session is None:
            connector = aiohttp.UnixConnector(str(self._socket), limit=_MAX_CONNECTIONS)
            self._session = aiohttp.ClientSession(
                connector=connector,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=_CALL_SECONDS),
                skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def stale_seconds(self) -> float | None:
        """For how long what this front knows may be out of date, or None: the view's own word, and the time
        since the agent last spoke when it is gone or silent."""
        if self.view is None:
            return None
        silence = self._clock() - self._heard
        told = self.view.stale_seconds
        if told is None and self._connected and silence < SILENCE_SECONDS:
            return None
        return (told or 0.0) + silence

    async def follow(self) -> None:
        """Keep the view up to date, for ever; reconnects with a growing pause."""
        pause = _BACKOFF_SECONDS[0]
        while True:
            heard = self._heard
            try:
                await self._read_views()
                reason = "the stream ended"
            except (*_AGENT_ERRORS, asyncio.IncompleteReadError) as error:
                reason = f"{type(error).__name__}: {error}"
            if self._connected:
                log.warning("agent.lost reason=%s", reason)
            self._connected = False
            pause = _BACKOFF_SECONDS[0] if self._heard > heard else min(2 * pause, _BACKOFF_SECONDS[1])
            await asyncio.sleep(pause)

    async def _read_views(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, connect=_CALL_SECONDS, sock_read=_FRAME_SECONDS)
        async with self.session.get(AGENT / "local/view", timeout=timeout) as response:
            response.raise_for_status()
            while True:
                length = int.from_bytes(await response.content.readexactly(FRAME_HEADER_BYTES), "big")
                if length > MAX_FRAME_BYTES:
                    raise OSError(f"a frame of {length} bytes")
                self._take(decode_view(await response.content.readexactly(length)))

    def _take(self, view: ServingView) -> None:
        if not self._connected:
            log.info("agent.connected index=%d models=%d", view.index, len(view.models))
        self._connected = True
        self._heard = self._clock()
        old, self.view = self.view, view
        if old is None or old.models != view.models:
            self._on_view(view)

    async def locate(self, digest: str) -> Path:
        """Where the blob lies on this machine; the agent fetches it first if need be. A path once told serves
        while the agent is away, as long as the file is there. Raises `NotReady`."""
        try:
            blob = await self._ask_blob(digest)
        except _AGENT_ERRORS as error:
            known = self._paths.get(digest)
            if known is not None and await asyncio.to_thread(known.is_file):
                return known
            raise NotReady("The model's file is not here yet, and the agent cannot be asked", digest=digest) from error
        path = self._paths[digest] = Path(blob.path)
        return path

    async def _ask_blob(self, digest: str) -> _Blob:
        timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS, connect=_CALL_SECONDS)
        async with self.session.get(AGENT / "local/blobs" / digest, timeout=timeout) as response:
            if response.status == 404:
                raise NotReady("No node that is up holds the model's file", digest=digest)
            if response.status == 507:
                raise NotReady("This node's disk is full: it has no room for the model's file", digest=digest)
            response.raise_for_status()
            return msgspec.json.decode(await response.read(), type=_Blob)

    async def push(self, report: StatsReport) -> StatsReply | None:
        """Hand in this front's counts; the other fronts' counts come back. None when the agent is away."""
        if not self._connected:
            return None
        options: dict[str, Any] = {"headers": {"Content-Type": "application/msgpack"}}
        timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
        body = msgspec.msgpack.encode(report)
        try:
            async with self.session.post(AGENT / "local/stats", data=body, timeout=timeout, **options) as response:
                response.raise_for_status()
                answer = await response.read()
                return msgspec.msgpack.decode(answer, type=StatsReply) if answer else StatsReply()
        except _AGENT_ERRORS as error:
            log.debug("stats.not_taken reason=%s", error)
            return None
