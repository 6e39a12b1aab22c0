"""Keeps one peer dialled: its addresses in order, again and again, with a growing and random pause."""

import asyncio
import logging
import random
import ssl
from collections.abc import Callable

from consensus.link import Link
from consensus.ports import PeerAddress
from consensus.state import NodeId

log = logging.getLogger(__name__)

ATTEMPT_SECONDS = 4.0
"""Limit of one attempt, handshake included."""
BACKOFF_MIN = 0.05
BACKOFF_MAX = 1.0


class Dialer:
    """One task. New addresses are tried at once when there is no connection."""

    def __init__(self, peer: NodeId, target: PeerAddress, context: ssl.SSLContext, make: Callable[[], Link]) -> None:
        self._peer, self._target, self._context, self._make = peer, target, context, make
        self._retarget = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"raft-dial-{peer[:8]}")

    def set_target(self, target: PeerAddress) -> None:
        if target != self._target:
            self._target = target
            self._retarget.set()

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
            if link is not None:
                await link.closed
                if link.was_up:
                    return True
        return False

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
