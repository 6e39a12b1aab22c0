"""Figures of the whole cluster: now, and over the last ten minutes."""

from typing import Annotated

from aiohttp import web

from node.http.routes import Route, answer, ports_of, route
from node.telemetry.history import History
from parvada import schema
from parvada.contract.kinds import Freshness, duration
from parvada.contract.operation import Answer

_MINUTES = r"^((6[0-9]|[7-9][0-9]|[1-5][0-9][0-9]|600)s?|([1-9]|10)m)$"
_SECONDS = r"^(([2-9]|[1-5][0-9]|60)s?|1m)$"


@route("GET", "/v1/stats", Answer(schema.Stats), tag="Observation")
async def now(request: web.Request) -> web.Response:
    """Requests, latencies and loads of all nodes, merged."""
    return answer(ports_of(request).telemetry.stats())


class HistoryQuery(Freshness, frozen=True, kw_only=True):
    window: Annotated[float, duration(_MINUTES, "a time from 1m to 10m")] = 600.0
    """So far back from now: one to ten minutes."""
    step: Annotated[float, duration(_SECONDS, "a time from 2s to 1m")] = 10.0
    """Two seconds to a minute."""


@route("GET", "/v1/stats/history", Answer(History), tag="Observation", query=HistoryQuery)
async def history(request: web.Request, query: HistoryQuery) -> web.Response:
    """The same over the last minutes, step by step."""
    return answer(ports_of(request).telemetry.history(query.window, query.step))


ROUTES: tuple[Route, ...] = (now, history)
