"""Raft's network: one mutually authenticated TLS connection to every peer of the table; the higher id dials.

Connections follow the peer table, not the Raft configuration. All of it runs in the log's own event loop.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Callable, Mapping

import msgspec

from consensus.ports import Beacon, PeerAddress
from consensus.state import NodeId
from consensus.wire.acceptor import Acceptor, HandshakeLimits
from consensus.wire.dialer import Dialer
from consensus.wire.frames import Beacon as BeaconMessage, FrameCodec, Message
from consensus.wire.link import Link

log = logging.getLogger(__name__)


IDLE_SECONDS = 3.5
"""A connection that is silent for so long is dropped: its peer is stopped or cut off."""
SWEEP_SECONDS = 0.5
BEACON_SWEEPS = 2
"""A beacon every second."""


class TransportEvents(msgspec.Struct, frozen=True):
    """What the transport reports, in order, within the loop."""

    on_up: Callable[[NodeId], None]
    on_down: Callable[[NodeId], None]
    on_message: Callable[[NodeId, Message], None]
    on_crash: Callable[[BaseException], None]
    """One of the transport's own tasks died."""


class _Heard(msgspec.Struct, frozen=True):
    payload: bytes
    at: float


class MtlsTransport:
    """Dials, accepts, frames and beacons. `identify` names the peer of a certificate (DER) or raises
    PermissionError; only ids of the peer table are admitted. `clock` and `wall` are the clocks of its links."""

    def __init__(
        self,
        me: NodeId,
        cluster_id: str,
        server_context: ssl.SSLContext,
        client_context: ssl.SSLContext,
        identify: Callable[[bytes], NodeId],
        events: TransportEvents,
        limits: HandshakeLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._me, self._identify, self._events = me, identify, events
        self._client_context = client_context
        self._codec = FrameCodec(cluster_id)
        self._clock, self._wall = clock, wall
        self._acceptor = Acceptor(server_context, self._link, limits)
        self._peers: dict[NodeId, PeerAddress] = {}
        self._dialers: dict[NodeId, Dialer] = {}
        self._admitted: set[Link] = set()
        self._links: dict[NodeId, Link] = {}
        self._outbox: dict[NodeId, list[Message]] = {}
        self._beacon = BeaconMessage(b"")
        self._heard: dict[NodeId, _Heard] = {}
        self._beating: asyncio.Task[None] | None = None
        self.refused = 0
        """Connections that were turned away after their handshake."""

    # ------------------------------------------------------------ life
    async def start(self, host: str, port: int) -> int:
        """Listen; the port, chosen by the system if it was 0. Raises OSError."""
        port = self._acceptor.start(host, port)
        self._beating = asyncio.create_task(self._beat(), name="raft-beacons")
        for task in (self._acceptor.task, self._beating):
            self._guard(task)
        return port

    async def stop(self) -> None:
        """Close everything."""
        await self._acceptor.stop()
        tasks = [dialer.task for dialer in self._dialers.values()]
        if self._beating is not None:
            tasks.append(self._beating)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        closing = [link.closed for link in self._admitted]
        for link in list(self._admitted):
            link.abort()
        if closing:
            await asyncio.wait(closing, timeout=1.0)

    def _guard(self, task: asyncio.Task[None] | None) -> None:
        def done(ended: asyncio.Task[None]) -> None:
            if not ended.cancelled() and (error := ended.exception()) is not None:
                self._events.on_crash(error)

        if task is not None:
            task.add_done_callback(done)

    # ------------------------------------------------------------ peer table
    def set_peers(self, peers: Mapping[NodeId, PeerAddress]) -> None:
        """Whom to connect to and whom to admit. Ids that are gone are disconnected at once."""
        gone = self._peers.keys() - peers.keys()
        self._peers = {peer: target for peer, target in peers.items() if peer != self._me}
        for peer in gone:
            if (dialer := self._dialers.pop(peer, None)) is not None:
                dialer.cancel()
            self._heard.pop(peer, None)
            self.disconnect(peer)
        for peer, target in self._peers.items():
            if peer in self._dialers:
                self._dialers[peer].set_target(target)
            elif self._me > peer:
                self._dialers[peer] = self._dial(peer, target)

    def _dial(self, peer: NodeId, target: PeerAddress) -> Dialer:
        dialer = Dialer(peer, target, self._client_context, lambda: self._link(peer))
        self._guard(dialer.task)
        return dialer

    def _link(self, expected: NodeId | None = None) -> Link:
        return Link(self, self._codec, expected, clock=self._clock, wall=self._wall)

    def disconnect(self, peer: NodeId) -> None:
        """Drop the live connections. A peer that is still in the table may come back."""
        for link in [link for link in self._admitted if link.peer == peer]:
            self._drop(link)

    def renew(self) -> None:
        """Put new connections, with today's certificates, in the place of those that this node has dialled."""
        for dialer in self._dialers.values():
            dialer.renew()

    def judge_again(self) -> None:
        """End the connections whose certificates are not accepted any more."""
        for link in list(self._admitted):
            try:
                self._identify(link.certificate)
            except PermissionError as error:
                log.info("raft.peer_dropped peer=%s reason=%s", link.peer, error)
                self._drop(link)

    # ------------------------------------------------------------ messages
    def send(self, peer: str, message: Message) -> bool:
        """Put a message into the outbox; False when the peer is not connected."""
        link = self._links.get(NodeId(peer))
        if link is None or not link.up:
            return False
        self._outbox.setdefault(NodeId(peer), []).append(message)
        return True

    def backlog(self, peer: str) -> int:
        link = self._links.get(NodeId(peer))
        return 0 if link is None else link.backlog

    def flush(self) -> None:
        """Let everything in the outbox go."""
        outbox, self._outbox = self._outbox, {}
        for peer, messages in outbox.items():
            if (link := self._links.get(peer)) is not None:
                link.write(messages)

    def drop(self) -> None:
        self._outbox = {}

    def set_beacon(self, payload: bytes) -> None:
        self._beacon = BeaconMessage(payload)

    def beacons(self) -> Mapping[NodeId, Beacon]:
        """The last beacon of each peer that ever sent one. Safe from any thread."""
        now = self._clock()
        return {peer: Beacon(heard.payload, now - heard.at) for peer, heard in self._heard.copy().items()}

    # ------------------------------------------------------------ links
    def admit(self, link: Link) -> NodeId | None:
        try:
            peer = self._identify(link.certificate)
        except PermissionError as error:
            self._refuse(f"its certificate is not accepted: {error}")
            return None
        if peer not in self._peers or link.expected not in (None, peer):
            self._refuse(f"{peer} is not {link.expected or 'in the peer table'}")
            return None
        self._admitted.add(link)
        # Says hello before anything else: the first frame is what makes a link count as up.
        link.write([self._beacon])
        return peer

    def _refuse(self, reason: str) -> None:
        self.refused += 1
        log.info("raft.peer_refused reason=%s", reason)

    def link_received(self, link: Link, message: Message) -> None:
        peer = link.peer
        if peer is None or peer not in self._peers:
            link.abort()
            return
        if not link.up:
            self._begin(peer, link)
        if self._links.get(peer) is not link:
            return  # replaced by a newer connection of the same peer
        if isinstance(message, BeaconMessage):
            self._heard[peer] = _Heard(message.payload, self._clock())
        else:
            self._events.on_message(peer, message)

    def _begin(self, peer: NodeId, link: Link) -> None:
        if (old := self._links.get(peer)) is not None:
            self._drop(old)
        self._links[peer] = link
        link.came_up()
        log.info("raft.peer_up peer=%s", peer)
        self._events.on_up(peer)

    def _end(self, link: Link) -> None:
        if link.peer is not None and self._links.get(link.peer) is link:
            del self._links[link.peer]
            self._outbox.pop(link.peer, None)
            link.up = False
            log.info("raft.peer_down peer=%s", link.peer)
            self._events.on_down(link.peer)

    def link_lost(self, link: Link) -> None:
        self._admitted.discard(link)
        self._end(link)

    def _drop(self, link: Link) -> None:
        link.abort()
        self.link_lost(link)

    async def _beat(self) -> None:
        sweeps = 0
        while True:
            await asyncio.sleep(SWEEP_SECONDS)
            sweeps += 1
            for link in list(self._admitted):
                if reason := link.is_stale(IDLE_SECONDS):
                    log.info("raft.peer_dropped peer=%s reason=%s", link.peer, reason)
                    self._drop(link)
                elif link.up and sweeps % BEACON_SWEEPS == 0:
                    link.write([self._beacon])
