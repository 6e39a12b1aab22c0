"""The listener of the peer port: bounds what strangers and slow peers hold, and cuts a node's connections at once."""

import asyncio
import functools
import ssl
import time
import weakref
from typing import cast

from aiohttp import web

from consensus.state import NodeId
from consensus.wire.acceptor import Acceptor, HandshakeLimits
from node import logs

log = logs.get("node.peering.port")

LIMITS = HandshakeLimits(seconds=5.0, at_once=128, per_address=64)
"""Many nodes of one host greet one another at their start, all from the same address."""
CONNECTIONS = 1024
"""Beyond, those that come are closed."""
IDLE_SECONDS = 20.0
"""For the whole head of a first request, and between requests. The client of our peers keeps idle ones for 15 s."""
CLOSE_BEFORE_SECONDS = 3600.0
"""A connection must not be kept beyond the certificate that opened it, or a request would meet its end: so long
before, an answer is the last one, and the next call comes over a connection with the renewed certificate."""


class PeerPort:
    """Accepts for an aiohttp server. `admitted` tells it who is at the other end of each request's connection."""

    def __init__(self) -> None:
        self._callers: weakref.WeakKeyDictionary[asyncio.BaseTransport, NodeId] = weakref.WeakKeyDictionary()
        self._acceptor: Acceptor | None = None

    def start(self, server: web.Server, context: ssl.SSLContext, host: str, port: int) -> int:
        """Listen; the port, chosen by the system if it was 0. Raises OSError."""

        def protocol() -> asyncio.BaseProtocol:
            return _Closed() if len(server.connections) >= CONNECTIONS else server()

        self._acceptor = Acceptor(context, protocol, LIMITS)
        bound = self._acceptor.start(host, port)
        if self._acceptor.task is not None:
            self._acceptor.task.add_done_callback(_report)
        return bound

    async def stop(self) -> None:
        """No new connections; those that are open are the server's to end."""
        if self._acceptor is not None:
            await self._acceptor.stop()
            self._acceptor = None

    def admitted(self, request: web.Request, caller: NodeId) -> None:
        """This request's connection belongs to `caller`."""
        if request.transport is not None:
            self._callers[request.transport] = caller

    def disconnect(self, node: NodeId) -> int:
        """Abort every connection of `node`, whatever is under way on it. Returns how many there were."""
        found = [transport for transport, caller in self._callers.items() if caller == node]
        for transport in found:
            cast(asyncio.Transport, transport).abort()
        return len(found)


async def retire_old_connection(request: web.Request, response: web.StreamResponse) -> None:
    """A signal before each answer: see CLOSE_BEFORE_SECONDS."""
    if _end_of_certificate(request) - time.time() < CLOSE_BEFORE_SECONDS:
        response.force_close()
        response.headers["Connection"] = "close"


def _end_of_certificate(request: web.Request) -> float:
    """Wall-clock time at which the certificate of this connection's peer ends."""
    tls = request.transport.get_extra_info("ssl_object") if request.transport is not None else None
    not_after = (tls.getpeercert() or {}).get("notAfter") if tls is not None else None
    return _seconds(not_after) if isinstance(not_after, str) else 0.0


@functools.lru_cache(maxsize=CONNECTIONS)
def _seconds(not_after: str) -> float:
    return float(ssl.cert_time_to_seconds(not_after))


class _Closed(asyncio.Protocol):
    """What a connection beyond the bound gets."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        log.warning("peer_port.full", connections=CONNECTIONS)
        cast(asyncio.Transport, transport).abort()


def _report(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("peer_port.ended", reason=repr(error))
