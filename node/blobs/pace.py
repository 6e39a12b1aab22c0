"""Bounds how many bytes a second something takes: repair must not keep the network and the disks from their work."""

import asyncio
from collections.abc import Awaitable, Callable

BURST_SECONDS = 0.25
"""What was not used of the rate for so long may be made up for."""


class Pace:
    """`take` returns when the bytes may go on. Over any time T it lets `rate * (T + BURST_SECONDS)` pass, and the one
    piece that is under way."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`rate` in bytes a second; 0 = no bound."""
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._paid_until = clock()

    async def take(self, size: int) -> None:
        """All who share a pace stand in one queue: each waits for what those before it have taken."""
        if not self._rate:
            return
        now = self._clock()
        self._paid_until = max(self._paid_until, now - BURST_SECONDS) + size / self._rate
        if self._paid_until > now:
            await self._sleep(self._paid_until - now)
