"""Keeps one peer dialled: its addresses in order, again and again, with a growing and random pause.

A connection lives no longer than the certificates that opened it; so another one takes its place in good time, or when
told to, and the first ends only once the second is up.
"""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable

from consensus.ports import PeerAddress
from consensus.state import NodeId
from consensus.wire.link import Link

log = logging.getLogger(__name__)

ATTEMPT_SECONDS = 4.0
"""Limit of one attempt, handshake included."""
BACKOFF_MIN = 0.05
BACKOFF_MAX = 1.0
RENEW_SECONDS = 4 * 3600.0
"""Every leaf has at least 4.8 hours left, those of both ends: so long a connection may last."""
UP_SECONDS = 4.0
"""For a connection's first frame to come: its peer has admitted us, and it counts as up."""


class Dialer:
    """One task. New addresses are tried at once when there is no connection."""

    def __init__(self, peer: NodeId, target: PeerAddress, context: ssl.SSLContext, make: Callable[[], Link]) -> None:
        self._peer, self._target, self._context, self._make = peer, target, context, make
        self._retarget = asyncio.Event()
        self._renewal = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"raft-dial-{peer[:8]}")

    def set_target(self, target: PeerAddress) -> None:
        if target != self._target:
            self._target = target
            self._retarget.set()

    def renew(self) -> None:
        """Put a new connection, with today's certificates, in the place of the one that is up."""
        self._renewal.set()

    def cancel(self) -> None:
        self.task.cancel()

    async def _run(self) -> None:
        backoff = BACKOFF_MIN
        while True:
            self._retarget.clear()
            if await self._connect_and_hold():
                backoff = BACKOFF_MIN
            try:
                async with asyncio.timeout(backoff * random.uniform(0.5, 1.5)):  # noqa: S311  # only spreads attempts
                    await self._retarget.wait()
            except TimeoutError:
                backoff = min(backoff * 2, BACKOFF_MAX)

    async def _connect_and_hold(self) -> bool:
        """Wait for the end of the first connection that gets up; True if there was one."""
        target = self._target
        for address in target.addresses:
            link = await self._connect(address, target.port)
            if link is not None and await self._hold(link, address, target.port):
                return True
        return False

    async def _hold(self, link: Link, address: str, port: int) -> bool:
        """Until the end of this connection, or of the last that took its place; whether it was ever up."""
        self._renewal.clear()
        while not await self._ended(link, RENEW_SECONDS):
            self._renewal.clear()
            successor = await self._connect(address, port)
            if successor is not None and await self._comes_up(successor):
                link = successor  # the transport has ended the one before by now
            elif successor is not None:
                successor.abort()
        return link.was_up

    async def _ended(self, link: Link, seconds: float) -> bool:
        """Wait for the end of the connection; False when another one should take its place first."""
        renewal = asyncio.create_task(self._renewal.wait(), name=f"raft-renewal-{self._peer[:8]}")
        link.closed.add_done_callback(lambda _: renewal.cancel())
        try:
            await asyncio.wait([renewal], timeout=seconds)
        finally:
            renewal.cancel()
        return link.closed.done()

    async def _comes_up(self, link: Link) -> bool:
        await asyncio.wait({link.up_or_closed}, timeout=UP_SECONDS)
        return link.was_up

    async def _connect(self, address: str, port: int) -> Link | None:
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                _, link = await asyncio.get_running_loop().create_connection(
                    self._make, address, port, ssl=self._context
                )
        except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
            log.debug("raft.dial_failed peer=%s address=%s error=%s", self._peer, address, error)
            return None
        return link
