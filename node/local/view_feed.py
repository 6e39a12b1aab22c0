"""One encoded serving view for all fronts, renewed when something they must know changes and at least each second."""

import asyncio
from collections.abc import AsyncIterator

from consensus.ports import Log
from node.local.serving_view import ViewBuilder, urgent
from serving.view import ServingView, encode_view

SETTLE_SECONDS = 0.02
"""So that a burst of commits makes one frame."""
AGE_SECONDS = 1.0


class ViewFeed:
    """`run` it as a root task. A slow front skips frames: only the newest counts."""

    def __init__(self, log: Log, builder: ViewBuilder, age: float = AGE_SECONDS) -> None:
        self._log = log
        self._builder = builder
        self._age = age
        self._view: ServingView | None = None
        self._frame = b""
        self._number = 0
        self._changed = asyncio.Event()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow(), name="view.follow")
            while True:
                self._renew()
                await asyncio.sleep(self._age)

    async def frames(self) -> AsyncIterator[bytes]:
        """Whole frames, beginning with the present one."""
        sent = 0
        while True:
            if self._number > sent:
                sent = self._number
                yield self._frame
            else:
                await self._changed.wait()

    async def _follow(self) -> None:
        async for item in self._log.subscribe():
            if self._view is not None and urgent(self._view, self._builder.build(item.state, self._log.status)):
                await asyncio.sleep(SETTLE_SECONDS)
                self._renew()

    def _renew(self) -> None:
        self._view = self._builder.build(self._log.state, self._log.status)
        self._frame = encode_view(self._view)
        self._number += 1
        self._changed.set()
        self._changed = asyncio.Event()
