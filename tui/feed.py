"""The workers that ask the cluster and post what they learn as messages; they change nothing on the screen."""

import asyncio
import time
from collections.abc import Callable

from textual.message import Message

from parvada.aio import AsyncClient
from parvada.errors import ParvadaError
from parvada.schema import EventRecord
from tui.snapshot import Snapshot

RETRY_SECONDS = 2.0

Post = Callable[[Message], object]


class Arrived(Message):
    """A new picture of the cluster."""

    def __init__(self, snapshot: Snapshot) -> None:
        super().__init__()
        self.snapshot = snapshot


class Lost(Message):
    """No node gave a picture; `reason` says what was tried."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


class Happened(Message):
    """One event of the cluster."""

    def __init__(self, event: EventRecord) -> None:
        super().__init__()
        self.event = event


class EventsLost(Message):
    """The event stream cannot be read; it is tried again."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason


async def fetch(client: AsyncClient) -> Snapshot:
    """One picture, all of it from whichever node answers. Raises `ParvadaError` if none does."""
    cluster = await client.status()
    url, node_id, stale = client.url, client.node, client.stale_seconds
    client.learn(cluster.nodes)
    running, queued, stats = await asyncio.gather(client.jobs("running"), client.jobs("queued"), client.stats())
    return Snapshot(cluster, (*running, *queued), stats, url, node_id, time.monotonic(), stale)


async def poll(client: AsyncClient, post: Post, interval: float) -> None:
    """Post a picture each `interval` seconds, for ever."""
    while True:
        await poll_once(client, post)
        await asyncio.sleep(interval)


async def poll_once(client: AsyncClient, post: Post) -> None:
    """Post one picture, or that there is none."""
    try:
        post(Arrived(await fetch(client)))
    except ParvadaError as error:
        post(Lost(str(error)))


async def listen(client: AsyncClient, post: Post, since: int) -> None:
    """Post every event after log index `since`, for ever."""
    while True:
        try:
            async for event in client.events(since):
                since = max(since, event.index)
                post(Happened(event))
        except ParvadaError as error:
            post(EventsLost(str(error)))
        await asyncio.sleep(RETRY_SECONDS)
