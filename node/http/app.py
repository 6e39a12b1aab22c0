"""Routes with their roles, and the middlewares around all of them; no logic of any resource."""

import time
from collections.abc import Callable, Iterable

from aiohttp import web

from node.http import cluster, datasets, events, jobs, metrics, models, nodes, reference, secret, stats, tokens, uploads
from node.http.auth import CALLER, Callers, admit
from node.http.context import PORTS, Ports
from node.http.errors import BEGUN, Handler, Refusal, Unknown, errors
from node.http.params import body_of, check_path, query_of
from node.http.reference import REFERENCE, Reference
from node.http.routes import Route, catch_up
from parvada.contract.kinds import Freshness
from serving.operations import OPERATIONS as FRONT_OPERATIONS

ROUTES: tuple[Route, ...] = tuple(
    route
    for module in (uploads, datasets, jobs, models, cluster, nodes, events, stats, metrics, tokens, secret, reference)
    for route in module.ROUTES
)

LAG_SECONDS = 0.1
"""A node that is a little behind needs no more; one that needs more asks the log how far it is."""
SMALL_BODY_BYTES = 4 * 1024 * 1024
"""Of everything but an upload, which is streamed past this limit."""


def make_app(
    ports: Ports, routes: Iterable[web.RouteDef] = (), clock: Callable[[], float] = time.monotonic
) -> web.Application:
    """The agent's application: the client API, and `routes` (its children's), which look after themselves."""
    app = web.Application(middlewares=[errors], client_max_size=SMALL_BODY_BYTES)
    app[PORTS] = ports
    app[REFERENCE] = Reference([*FRONT_OPERATIONS, *(route.operation for route in ROUTES)], ports.settings.auth)
    app.on_response_prepare.append(_stamp)
    app.add_routes(list(routes))
    callers = Callers(ports.log, ports.settings.admin_sha256s, clock)
    # With GET comes HEAD.
    app.add_routes([web.route(route.method, route.path, _guarded(route, ports, callers)) for route in ROUTES])
    return app


def _guarded(route: Route, ports: Ports, callers: Callers) -> Handler:
    """Around every call of the API: who may, whether it is asked as declared, and how fresh a read must be."""
    operation = route.operation

    async def call(request: web.Request) -> web.StreamResponse:
        if operation.role is not None:
            caller = await callers.identify(request.headers.get("Authorization"))
            admit(caller, operation.role, ports.settings)
            request[CALLER] = caller
        query = query_of(request, operation.query or Freshness)
        check_path(request, operation)
        await _be_fresh(query, ports)
        asked = (query,) if route.query else ()
        if operation.body is not None and operation.body.form is not bytes:
            asked += (await body_of(request, operation.body),)
        try:
            return await route.handler(request, *asked)
        except Unknown:
            # Made a moment ago through another node, it may only not have come here yet.
            if not ports.log.status.quorum or request.get(BEGUN):
                raise
            await catch_up(ports)
            return await route.handler(request, *asked)

    return call


async def _be_fresh(asked: Freshness, ports: Ports) -> None:
    if asked.consistency == "linearizable":
        await ports.log.barrier()
    if asked.min_index:
        try:
            await ports.log.wait_applied(asked.min_index, LAG_SECONDS)
        except TimeoutError:
            await _catch_up_to(asked.min_index, ports)


async def _catch_up_to(index: int, ports: Ports) -> None:
    """Whatever any node has acknowledged is here once the log has been passed through; what is still not here then
    was never written, and waiting for it would not help."""
    await catch_up(ports)
    if (reached := ports.log.state.index) < index:
        message = f"no write has had the index {index} yet: the log is at {reached}"
        raise Refusal(409, "index_ahead", message, {"field": "min_index", "value": index, "reached": reached})


async def _stamp(request: web.Request, response: web.StreamResponse) -> None:
    """On every answer, refusals and streams too: who answered and, without a quorum, how old it may be."""
    request[BEGUN] = True
    ports = request.app[PORTS]
    status = ports.log.status
    response.headers["x-parvada-node"] = ports.settings.node
    if not status.quorum:
        response.headers["x-parvada-stale"] = f"{status.seconds_without_quorum:.1f}"
