"""What happens in the cluster, as a stream: Server-Sent Events or JSON lines, resumable by log index."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable

import msgspec
from aiohttp import web

from consensus.messages import Event
from consensus.ports import Log, Resync
from node.http import views
from node.http.errors import Refusal
from node.http.params import log_index
from node.http.routes import Route, ports_of, route
from parvada import schema
from parvada.contract.kinds import Freshness, LogIndex
from parvada.contract.operation import NDJSON, SSE, Answer

KEEPALIVE_SECONDS = 10.0
STREAMS = 256
"""At once on one node: each holds one of the connections (512) by which a front reaches its agent, for ever."""
RESYNC = "resync"

_streams = asyncio.Semaphore(STREAMS)


class EventsQuery(Freshness, frozen=True, kw_only=True):
    since: LogIndex | None = None
    """From this log index on; without it, and without `Last-Event-ID`, from now on."""
    kind: str = ""
    """Only those of which the kind begins so, such as `job.`."""


EVENTS = Answer(
    bytes,
    media=(SSE, NDJSON),
    text="A stream without an end. `event: resync` says that some were lost: read the state anew.",
    example='id: 57\nevent: dataset.added\ndata: {"index":57,"at":"2026-05-01T12:00:00.000Z","kind":"dataset.added",'
    '"subject":"iris","detail":{"version":1,"rows":150}}\n\n',
)


@route("GET", "/v1/events", EVENTS, tag="Cluster", query=EventsQuery, refuses=(429,))
async def stream(request: web.Request, query: EventsQuery) -> web.StreamResponse:
    """What happens in the cluster, as it happens.

    Server-Sent Events, each with its log index as id; with `Accept: application/x-ndjson`, lines of JSON.
    """
    return await follow(request, query.since, lambda event: event.kind.startswith(query.kind))


async def follow(request: web.Request, since: int | None, wanted: Callable[[Event], bool]) -> web.StreamResponse:
    """From `Last-Event-ID`, or `since`, else from now. `event: resync` when the memory does not reach back so far,
    or the reader was too slow: what lies between is lost to it, and it should read the state anew."""
    log = ports_of(request).log
    if last := request.headers.get("Last-Event-ID"):
        since = log_index("since", last)
    if _streams.locked():
        raise Refusal(429, "busy", f"{STREAMS} event streams are open on this node; ask another")
    lines = NDJSON in request.headers.get("Accept", "")
    response = web.StreamResponse(
        headers={
            "Content-Type": NDJSON if lines else "text/event-stream",
            "Cache-Control": "no-store",
        }
    )
    async with _streams, contextlib.aclosing(_events(log, since)) as events:
        await response.prepare(request)
        if request.method == "HEAD":
            return response
        async for group in events:
            shown = [event for event in group if event.kind == RESYNC or wanted(event)]
            if shown:
                await response.write(b"".join(map(_line if lines else _sse, shown)))
            elif not group and not lines:
                await response.write(b": alive\n\n")
            if request.transport is None or request.transport.is_closing():
                break
    return response


async def _events(log: Log, since: int | None) -> AsyncGenerator[tuple[Event, ...], None]:
    """Each event once, in order; nothing when nothing has happened for a while. Events of one index come together, to
    be written at once: a reader cut off between them would resume after that index, and never see the rest."""
    feed = log.subscribe()
    reached = log.state.index if since is None else since
    while True:
        try:
            item = await asyncio.wait_for(anext(feed), KEEPALIVE_SECONDS)
        except TimeoutError:
            yield ()
            continue
        except StopAsyncIteration:
            return
        events = _missed(log, item, reached) if isinstance(item, Resync) else item.events
        for index, group in itertools.groupby(events, key=lambda event: event.index):
            if index > reached:
                yield tuple(group)
        reached = max(reached, item.state.index)


def _missed(log: Log, item: Resync, reached: int) -> tuple[Event, ...]:
    """What lies between the reader and the state it starts from; a `resync` where nobody remembers."""
    found = log.recent_events(reached)
    if found is not None:
        return tuple(event for event in found if event.index <= item.state.index)
    return (Event(item.state.index, time.time(), RESYNC, "", views.NO_DETAIL),)


def _record(event: Event) -> bytes:
    shown = schema.EventRecord(
        index=event.index,
        at=views.iso(event.at),
        kind=event.kind,
        subject=event.subject,
        detail=msgspec.json.decode(event.detail or b"{}"),
    )
    return msgspec.json.encode(shown)


def _line(event: Event) -> bytes:
    return _record(event) + b"\n"


def _sse(event: Event) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.index, event.kind.encode(), _record(event))


ROUTES: tuple[Route, ...] = (stream,)
