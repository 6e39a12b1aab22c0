"""Load and resources, merged over all nodes within reach: now, and over the last ten minutes."""

from aiohttp import web

from node.http.errors import invalid
from node.http.params import known_only, seconds
from node.http.routes import Route, answer, ports_of


async def now(request: web.Request) -> web.Response:
    known_only(request)
    return answer(ports_of(request).telemetry.stats())


async def history(request: web.Request) -> web.Response:
    """`window` back from now, in steps of `step`."""
    known_only(request, ["window", "step"])
    window, step = seconds(request, "window", "10m"), seconds(request, "step", "10s")
    if not 2 <= step <= window <= 600:
        raise invalid("window and step", f"{window:g}s, {step:g}s", "2s <= step <= window <= 10m")
    return answer(ports_of(request).telemetry.history(window, step))


ROUTES = (Route("GET", "/v1/stats", now), Route("GET", "/v1/stats/history", history))
