"""The front's end of the agent's Unix socket: follows the view, finds model files, hands in statistics.

The last view is kept while the agent is silent: a front goes on answering from it and says how old it is.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path

import aiohttp
import msgspec

from parvada.local import MAX_VIEW_BYTES, STATS, VIEW
from parvada.local_calls import AgentAway, AgentRefused, AgentSocket
from serving.errors import NotReady
from serving.stats import StatsReply, StatsReport
from serving.view import ServingView, decode_view

log = logging.getLogger(__name__)

SILENCE_SECONDS = 3.0
"""The agent speaks at least each second; after this long it counts as silent."""
_FRAME_SECONDS = 10.0
_CALL_SECONDS = 5.0
_FETCH_SECONDS = 120.0
"""Bringing a large model from another node takes its time."""
_MAX_CONNECTIONS = 512
_BACKOFF_SECONDS = (0.05, 1.0)
_REASONS = {
    404: "No node that is up holds the model's file",
    507: "This node's disk is full: it has no room for the model's file",
}


class FrontLink:
    """Started by running `follow`; `session` is also the proxy's way to the agent."""

    def __init__(
        self,
        socket: Path,
        on_view: Callable[[ServingView], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent = AgentSocket(socket, _MAX_CONNECTIONS)
        self._on_view = on_view
        self._clock = clock
        self._heard = 0.0
        self._connected = False
        self._paths: dict[str, Path] = {}
        self.view: ServingView | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        return self._agent.session

    async def close(self) -> None:
        await self._agent.close()

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
            except (AgentAway, AgentRefused, msgspec.MsgspecError) as error:
                reason = str(error)
            if self._connected:
                log.warning("agent.lost reason=%s", reason)
            self._connected = False
            pause = _BACKOFF_SECONDS[0] if self._heard > heard else min(2 * pause, _BACKOFF_SECONDS[1])
            await asyncio.sleep(pause)

    async def _read_views(self) -> None:
        async with contextlib.aclosing(self._agent.frames(VIEW, MAX_VIEW_BYTES, _FRAME_SECONDS)) as frames:
            async for body in frames:
                self._take(decode_view(body))

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
            blob = await self._agent.blob(digest, _FETCH_SECONDS)
        except AgentRefused as refused:
            if refused.status in _REASONS:
                raise NotReady(_REASONS[refused.status], digest=digest) from refused
            return await self._known(digest, refused)
        except AgentAway as away:
            return await self._known(digest, away)
        path = self._paths[digest] = Path(blob.path)
        return path

    async def _known(self, digest: str, error: Exception) -> Path:
        known = self._paths.get(digest)
        if known is not None and await asyncio.to_thread(known.is_file):
            return known
        raise NotReady("The model's file is not here yet, and the agent cannot be asked", digest=digest) from error

    async def push(self, report: StatsReport) -> StatsReply | None:
        """Hand in this front's counts; the other fronts' counts come back. None when the agent is away."""
        if not self._connected:
            return None
        try:
            answer = await self._agent.call("POST", STATS, msgspec.msgpack.encode(report), seconds=_CALL_SECONDS)
            return msgspec.msgpack.decode(answer, type=StatsReply) if answer else StatsReply()
        except (AgentAway, AgentRefused, msgspec.MsgspecError) as error:
            log.debug("stats.not_taken reason=%s", error)
            return None
