"""Routes with their roles, and the middlewares around all of them; no logic of any resource."""

import time
from collections.abc import Callable, Iterable

from aiohttp import web

from node.http import cluster, datasets, events, jobs, metrics, models, nodes, secret, stats, tokens
from node.http.auth import CALLER, Callers, admit
from node.http.context import PORTS, Ports
from node.http.errors import BEGUN, Handler, Refusal, Unknown, errors, invalid
from node.http.params import integer
from node.http.routes import Route, catch_up

MIN_INDEX_SECONDS = 10.0
SMALL_BODY_BYTES = 4 * 1024 * 1024
"""Of everything but an upload, which is streamed past this limit."""


def make_app(
    ports: Ports, routes: Iterable[web.RouteDef] = (), clock: Callable[[], float] = time.monotonic
) -> web.Application:
    """The agent's application: the client API, and `routes` (its children's), which look after themselves."""
    app = web.Application(middlewares=[errors], client_max_size=SMALL_BODY_BYTES)
    app[PORTS] = ports
    app.on_response_prepare.append(_stamp)
    app.add_routes(list(routes))
    callers = Callers(ports.log, ports.settings.admin_sha256s, clock)
    for module in (cluster, nodes, secret, events, stats, metrics, datasets, jobs, models, tokens):
        app.add_routes([web.route(r.method, r.path, _guarded(r, ports, callers)) for r in module.ROUTES])
    return app


def _guarded(route: Route, ports: Ports, callers: Callers) -> Handler:
    """Around every call of the API: who may, and how fresh a read must be."""

    async def call(request: web.Request) -> web.StreamResponse:
        caller = await callers.identify(request.headers.get("Authorization"))
        admit(caller, route.role, ports.settings)
        request[CALLER] = caller
        await _be_fresh(request, ports)
        try:
            return await route.handler(request)
        except Unknown:
            # Made a moment ago through another node, it may only not have come here yet.
            if not ports.log.status.quorum or request.get(BEGUN):
                raise
            await catch_up(ports)
            return await route.handler(request)

    return call


async def _be_fresh(request: web.Request, ports: Ports) -> None:
    consistency = request.query.get("consistency", "local")
    if consistency not in ("local", "linearizable"):
        raise invalid("consistency", consistency, "local or linearizable")
    if consistency == "linearizable":
        await ports.log.barrier()
    index = integer(request, "min_index", 0, 0, 2**62)
    if index:
        try:
            await ports.log.wait_applied(index, MIN_INDEX_SECONDS)
        except TimeoutError as error:
            raise Refusal(
                503, "behind", f"this node has not applied index {index} yet; ask again or ask another"
            ) from error


async def _stamp(request: web.Request, response: web.StreamResponse) -> None:
    """On every answer, refusals and streams too: who answered and, without a quorum, how old it may be."""
    request[BEGUN] = True
    ports = request.app[PORTS]
    status = ports.log.status
    response.headers["x-parvada-node"] = ports.settings.node
    if not status.quorum:
        response.headers["x-parvada-stale"] = f"{status.seconds_without_quorum:.1f}"
