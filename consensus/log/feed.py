"""Bounded fan-out of committed batches to subscribers of one event loop, and the ring of recent events.

A subscriber that cannot keep up loses its queue and gets one `Resync`: it never slows the log down, and it
never misses a change without knowing it.
"""

import asyncio
import bisect
from collections import deque
from weakref import WeakSet

from consensus.messages import Event
from consensus.ports import Batch, Resync
from consensus.state import ClusterState

QUEUE_BATCHES = 1024
"""Batches that one subscriber may be behind before it has to resync."""
RECENT_EVENTS = 10_000


class Subscription:
    """One reader's bounded queue: an async iterator that starts with a `Resync` and ends when the feed closes.

    Dropping the last reference to it unsubscribes; `close` does so at once.
    """

    def __init__(self, state: ClusterState, capacity: int) -> None:
        self._queue: deque[Batch | Resync] = deque([Resync(state)])
        self._capacity = capacity
        self._ready = asyncio.Event()
        self._ready.set()
        self._closed = False

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Batch | Resync:
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()

    def close(self) -> None:
        """Ends the iteration after what is queued."""
        self._closed = True
        self._ready.set()

    def offer(self, item: Batch | Resync) -> None:
        """Queue `item`; when the queue is full, or a resync makes it pointless, only the newest state stays."""
        if self._closed:
            return
        if isinstance(item, Resync) or len(self._queue) >= self._capacity:
            self._queue.clear()
            item = Resync(item.state)
        self._queue.append(item)
        self._ready.set()


class Feed:
    """Fans batches out. All methods belong to the loop of the subscribers."""

    def __init__(
        self, state: ClusterState, *, queue_batches: int = QUEUE_BATCHES, recent_events: int = RECENT_EVENTS
    ) -> None:
        self._state = state
        self._queue_batches = queue_batches
        self._subscriptions: WeakSet[Subscription] = WeakSet()
        self._recent: deque[Event] = deque(maxlen=recent_events)
        self._complete_since = state.index
        self._closed = False

    def publish(self, batch: Batch) -> None:
        """Hand `batch` to every subscriber and remember its events."""
        self._state = batch.state
        for event in batch.events:
            if len(self._recent) == self._recent.maxlen:
                self._complete_since = self._recent[0].index
            self._recent.append(event)
        for subscription in list(self._subscriptions):
            subscription.offer(batch)

    def resync(self, state: ClusterState) -> None:
        """A snapshot replaced the log: what happened in between is unknown, so the ring starts anew."""
        self._state = state
        self._recent.clear()
        self._complete_since = state.index
        for subscription in list(self._subscriptions):
            subscription.offer(Resync(state))

    def subscribe(self) -> Subscription:
        """A new subscription; its first item is a `Resync` with the newest published state."""
        subscription = Subscription(self._state, self._queue_batches)
        if self._closed:
            subscription.close()
        self._subscriptions.add(subscription)
        return subscription

    def recent_events(self, since: int) -> tuple[Event, ...] | None:
        """Events with an index above `since`, oldest first; None when the ring no longer reaches back so far."""
        if since < self._complete_since:
            return None
        events = list(self._recent)
        return tuple(events[bisect.bisect_right(events, since, key=lambda event: event.index) :])

    def close(self) -> None:
        """End every subscription, present and future."""
        self._closed = True
        for subscription in list(self._subscriptions):
            subscription.close()
