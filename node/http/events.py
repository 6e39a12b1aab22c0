"""What happens in the cluster, as a stream: Server-Sent Events or JSON lines, resumable by log index."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
from aiohttp import web

from consensus.messages import Event
from consensus.ports import Log, Resync
from node.http import views
from node.http.errors import invalid
from node.http.params import known_only
from node.http.routes import Route, ports_of
from parvada import schema

KEEPALIVE_SECONDS = 10.0
NDJSON = "application/x-ndjson"


async def stream(request: web.Request) -> web.StreamResponse:
    """From `since` (or `Last-Event-ID`), else from now. `event: resync` when the memory does not reach back so far,
    or the reader was too slow: what lies between is lost to it, and it should read the state anew."""
    known_only(request, ["since", "kind"])
    log, kind = ports_of(request).log, request.query.get("kind", "")
    since = _since(request)
    lines = NDJSON in request.headers.get("Accept", "")
    response = web.StreamResponse(
        headers={
            "Content-Type": NDJSON if lines else "text/event-stream",
            "Cache-Control": "no-store",
            "x-parvada-node": ports_of(request).settings.node,
        }
    )
    await response.prepare(request)
    async for event in _events(log, since):
        if event is not None and (event.kind == "resync" or event.kind.startswith(kind)):
            await response.write(_line(event) if lines else _sse(event))
        elif event is None and not lines:
            await response.write(b": alive\n\n")
        if request.transport is None or request.transport.is_closing():
            break
    return response


def _since(request: web.Request) -> int | None:
    text = request.headers.get("Last-Event-ID") or request.query.get("since")
    if text is None:
        return None
    if not text.isdecimal():
        raise invalid("since", text, "a log index, as in the id of an event")
    return int(text)


async def _events(log: Log, since: int | None) -> AsyncIterator[Event | None]:
    """Each event once, in order; None when nothing has happened for a while."""
    feed = log.subscribe()
    reached = log.state.index if since is None else since
    while True:
        try:
            item = await asyncio.wait_for(anext(feed), KEEPALIVE_SECONDS)
        except TimeoutError:
            yield None
            continue
        except StopAsyncIteration:
            return
        for event in _missed(log, item, reached) if isinstance(item, Resync) else item.events:
            if event.index > reached:
                yield event
        reached = max(reached, item.state.index)


def _missed(log: Log, item: Resync, reached: int) -> tuple[Event, ...]:
    """What lies between the reader and the state it starts from; a `resync` where nobody remembers."""
    found = log.recent_events(reached)
    if found is not None:
        return tuple(event for event in found if event.index <= item.state.index)
    return (Event(item.state.index, 0.0, "resync", "", views.NO_DETAIL),)


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


ROUTES = (Route("GET", "/v1/events", stream),)
