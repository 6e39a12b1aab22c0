"""From the log's thread to the main loop: the newest glance, the feed, and whoever waits for something to happen.

The thread never waits for the loop: what it leaves is bounded, and a loop that falls behind resyncs.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from consensus.log.feed import Feed
from consensus.log.glance import Glance
from consensus.log.replica import Advance
from consensus.ports import Batch
from consensus.queries import remembers
from consensus.state import ClusterState, CommandId

MAX_UNSEEN = 4096
"""Turns with news that the main loop may be behind."""

_Future = asyncio.Future[None]


class Delivery:
    """`turned` belongs to the log's thread, `state` and `glance` to any, the rest to the main loop."""

    def __init__(self, initial: ClusterState) -> None:
        self.feed = Feed(initial)
        self._initial = initial
        self._glance: Glance | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._unseen: deque[Advance] = deque()
        self._lost = True
        self._fed = -1
        self._scheduled = False
        self._outcomes: dict[str, list[_Future]] = {}
        self._conditions: dict[_Future, Callable[[Glance], bool]] = {}

    @property
    def state(self) -> ClusterState:
        return self._initial if self._glance is None else self._glance.state

    @property
    def glance(self) -> Glance:
        """Raises RuntimeError before the first turn."""
        if self._glance is None:
            raise RuntimeError("the log was not started")
        return self._glance

    # ------------------------------------------------------------ in the log's thread
    def turned(self, glance: Glance, advance: Advance | None) -> None:
        """Leave what is new for the main loop, and wake it if it sleeps."""
        # The glance first: whoever hears of an applied command must find it in `state`.
        before, self._glance = self._glance, glance
        if advance is not None:
            if len(self._unseen) >= MAX_UNSEEN:
                self._unseen.clear()
                self._lost = True
            self._unseen.append(advance)
        loop = self._loop
        if loop is None or self._scheduled or loop.is_closed():
            return
        if advance is not None or before is None or glance.is_news_after(before):
            self._scheduled = True
            loop.call_soon_threadsafe(self._deliver)

    # ------------------------------------------------------------ in the main loop
    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """The log has started: deliver to `loop` from now on."""
        self._loop = loop
        self._deliver()

    def end(self, reason: Exception) -> None:
        """Nothing more will come: whoever waits gets `reason`."""
        self._loop = None
        self.feed.close()
        for future in [*self._conditions, *(future for waiting in self._outcomes.values() for future in waiting)]:
            if not future.done():
                future.set_exception(reason)

    @property
    def awaited(self) -> int:
        """How many commands are waited for."""
        return len(self._outcomes)

    def is_awaited(self, command_id: str) -> bool:
        return command_id in self._outcomes

    async def applied(self, command_id: str, timeout: float) -> None:
        """Wait until the state remembers the command. Raises TimeoutError."""
        future: _Future = asyncio.get_running_loop().create_future()
        waiting = self._outcomes.setdefault(command_id, [])
        waiting.append(future)
        try:
            async with asyncio.timeout(timeout):
                await future
        finally:
            waiting.remove(future)
            if not waiting:
                self._outcomes.pop(command_id, None)

    async def until(self, holds: Callable[[Glance], bool], timeout: float) -> None:
        """Wait until `holds` is true of the newest glance. Raises TimeoutError."""
        if holds(self.glance):
            return
        future: _Future = asyncio.get_running_loop().create_future()
        self._conditions[future] = holds
        try:
            async with asyncio.timeout(timeout):
                await future
        finally:
            del self._conditions[future]

    def _deliver(self) -> None:
        self._scheduled = False
        if self._lost:
            self._lost = False
            self._resync(self.state)
        while self._unseen:
            advance = self._unseen.popleft()
            if advance.restored:
                self._resync(advance.state)
            elif advance.state.index > self._fed:
                self._fed = advance.state.index
                self.feed.publish(Batch(advance.entries, advance.events, advance.state))
            for _, entry in advance.entries:
                self._settle(entry.id)
        self._check_conditions()

    def _resync(self, state: ClusterState) -> None:
        self._fed = state.index
        self.feed.resync(state)
        for command_id in [awaited for awaited in self._outcomes if remembers(state, CommandId(awaited))]:
            self._settle(command_id)

    def _settle(self, command_id: str) -> None:
        for future in self._outcomes.get(command_id, ()):
            if not future.done():
                future.set_result(None)

    def _check_conditions(self) -> None:
        glance = self.glance
        for future, holds in self._conditions.items():
            if not future.done() and holds(glance):
                future.set_result(None)
