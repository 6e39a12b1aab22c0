"""One authenticated connection between two peers: frames in, frames out, with bounded buffers.

The identity is checked in `connection_made`, which asyncio calls after the TLS handshake and before the first
byte is handed over: an unknown peer is never read.
"""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Callable
from typing import Protocol, cast

from consensus.state import NodeId
from consensus.wire.frames import BadFrame, FrameCodec, FrameReader, Message

log = logging.getLogger(__name__)

MAX_QUEUED = 64 * 1024 * 1024
"""Bytes that may wait to be sent to a peer; a peer that takes nothing loses its connection."""


class LinkOwner(Protocol):
    """What a link reports to."""

    def admit(self, link: "Link") -> NodeId | None:
        """Who is at the other end, from `link.certificate`; None refuses the connection."""
        ...

    def link_received(self, link: "Link", message: Message) -> None: ...

    def link_lost(self, link: "Link") -> None:
        """Called once, only for links that were admitted."""
        ...


class Link(asyncio.Protocol):
    """A connection. It counts as up from its first frame: that proves the cluster, and that the peer admitted us.

    `clock` gives monotonic seconds, `wall` those since 1970.
    """

    def __init__(
        self,
        owner: LinkOwner,
        codec: FrameCodec,
        expected: NodeId | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._owner, self._codec = owner, codec
        self._clock, self._wall = clock, wall
        self.expected = expected
        """Whom we dialled; None for a connection that was accepted."""
        self._reader = FrameReader(codec)
        self._transport: asyncio.Transport | None = None
        self.peer: NodeId | None = None
        self.certificate = b""
        """The peer's certificate, DER."""
        self.expires_at = 0.0
        """Wall-clock time at which the peer's certificate ends."""
        self.heard_at = clock()
        self.up = self.was_up = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.up_or_closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # ------------------------------------------------------------ asyncio
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=MAX_QUEUED)
        tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
        self.certificate = tls.getpeercert(binary_form=True) or b""
        self.expires_at = _end_of_validity(tls)
        _tune(transport.get_extra_info("socket"))
        self.peer = self._owner.admit(self)
        if self.peer is None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.peer is None or self._transport is None or self._transport.is_closing():
            return
        self.heard_at = self._clock()
        try:
            messages = self._reader.feed(data)
        except BadFrame as error:
            log.warning("raft.bad_frame peer=%s error=%s", self.peer, error)
            self.abort()
            return
        for message in messages:
            self._owner.link_received(self, message)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer is not None:
            self._owner.link_lost(self)
        for future in (self.closed, self.up_or_closed):
            if not future.done():
                future.set_result(None)

    def came_up(self) -> None:
        """Its first frame is here."""
        self.up = self.was_up = True
        if not self.up_or_closed.done():
            self.up_or_closed.set_result(None)

    # ------------------------------------------------------------ use
    @property
    def backlog(self) -> int:
        """Bytes that wait to be sent."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def write(self, messages: list[Message]) -> None:
        """Send whole messages in one go; aborts the connection when too much is waiting."""
        if self._transport is None or self._transport.is_closing():
            return
        if self.backlog > MAX_QUEUED:
            log.warning("raft.peer_too_slow peer=%s queued=%d", self.peer, self.backlog)
            self.abort()
            return
        self._transport.write(b"".join(map(self._codec.encode, messages)))

    def abort(self) -> None:
        """Close at once; nothing that waits is sent."""
        if self._transport is not None:
            self._transport.abort()

    def is_stale(self, idle_seconds: float) -> str:
        """Why the connection should end: silence, or the end of the peer's certificate; empty if it should not."""
        if self._clock() - self.heard_at > idle_seconds:
            return f"silent for {idle_seconds} s"
        if self._wall() > self.expires_at:
            return "its certificate has expired"
        return ""


def _end_of_validity(tls: ssl.SSLObject) -> float:
    decoded = tls.getpeercert() or {}
    not_after = decoded.get("notAfter")
    return float(ssl.cert_time_to_seconds(not_after)) if isinstance(not_after, str) else 0.0


def _tune(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
