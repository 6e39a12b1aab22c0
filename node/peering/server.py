"""The server side of peer calls: port 7443, mutual TLS, each request judged by the certificate of its connection."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import msgspec
from aiohttp import web

from consensus.state import NodeId
from discovery.peer import Peer
from node import logs
from node.identity.pki import Identity
from node.identity.tls import Revoked
from node.peering.gate import Presence
from node.peering.mounts import Mounts
from node.peering.port import IDLE_SECONDS, PeerPort, retire_old_connection
from node.peering.sessions import READ_BUFFER_BYTES
from node.peering.table import PeerTable, with_first_address
from node.peering.words import MAX_TOLD, Grant, Greeting, MayStop, decode

log = logs.get("node.peering.server")

CALLS = 128
"""Requests under way at once, all peers together; more get 503."""
BODY_BYTES = 64 * 1024
"""Of a small call."""
STALL_SECONDS = 30.0
"""A sender that is silent for so long is given up."""
LINGER_SECONDS = 1.0
"""For the rest of a body that was refused, so that its sender reads why; then the connection ends."""
MAX_STOPPING_SECONDS = 30.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
CALLER = web.RequestKey("caller", NodeId)


class PeerApi:
    """The aiohttp application of the peer port. Other rooms `mount` their calls on it, for members only."""

    def __init__(self, identity: Identity, table: PeerTable, presence: Presence) -> None:
        self._identity, self._table, self._presence = identity, table, presence
        self._calls = 0
        self.app = web.Application(middlewares=[self._admit], client_max_size=BODY_BYTES)
        self.app.add_routes(
            [
                web.get("/peer/hello", self._hello),
                web.post("/peer/greet", self._greet),
                web.post("/peer/join", self._join),
                web.post("/peer/stopping", self._stopping),
            ]
        )
        self._mounts = Mounts("/peer")
        self.app.router.register_resource(self._mounts)
        self.app.on_response_prepare.append(retire_old_connection)
        self._port = PeerPort()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port (of use with port 0). `identity` is asked for its TLS context."""
        runner = self._runner = web.AppRunner(
            self.app,
            access_log=None,
            read_bufsize=READ_BUFFER_BYTES,
            handle_signals=False,
            shutdown_timeout=2.0,
            keepalive_timeout=IDLE_SECONDS,
            lingering_time=LINGER_SECONDS,
        )
        await runner.setup()
        assert runner.server is not None  # noqa: S101  for the type checker: `setup` has made it
        return self._port.start(runner.server, self._identity.server_context(), host, port)

    def mount(self, routes: Iterable[web.RouteDef]) -> None:
        """Serve these, too; at any time."""
        self._mounts.add(routes)

    def disconnect(self, node: NodeId) -> None:
        """Cut the connections of a node that may call no more."""
        if cut := self._port.disconnect(node):
            log.info("peer.disconnected", peer=node, connections=cut)

    async def stop(self) -> None:
        await self._port.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # ------------------------------------------------------------ admission
    @web.middleware
    async def _admit(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Who calls, may they, and is there room. Asked for each request: a node may be revoked at any time."""
        transport = request.transport
        tls = transport.get_extra_info("ssl_object") if transport is not None else None
        try:
            caller = self._identity.identify(tls.getpeercert(binary_form=True) if tls is not None else None)
        except Revoked as error:
            log.info("peer.revoked", remote=request.remote, reason=str(error))
            raise refusal(web.HTTPGone, str(error)) from error
        except PermissionError as error:
            log.warning("peer.refused", remote=request.remote, reason=str(error))
            raise refusal(web.HTTPForbidden, str(error)) from error
        if request.path not in OPEN_TO_BLANK and not self._presence.gate.is_member(caller):
            raise refusal(web.HTTPForbidden, f"node {caller} is not a member: it may only ask to join")
        if self._calls >= CALLS:
            raise refusal(web.HTTPServiceUnavailable, "too many calls at once")
        request[CALLER] = caller
        self._port.admitted(request, caller)
        self._calls += 1
        try:
            return await handler(request)
        finally:
            self._calls -= 1

    # ------------------------------------------------------------ nodes
    async def _hello(self, request: web.Request) -> web.Response:
        return json_answer(self._presence.gate.hello())

    async def _greet(self, request: web.Request) -> web.Response:
        """Both learn of each other; a blank caller is also told whom this node knows."""
        peer, grant = await self._introduced(request)
        known = self._table.peers() if peer.state == "blank" else ()
        told = tuple(other for other in known if other.id != peer.id)[:MAX_TOLD]
        standing = self._presence.gate.standing() if grant is None and peer.state == "member" else None
        return json_answer(Greeting(self._presence.gate.hello(), grant, told, standing))

    async def _join(self, request: web.Request) -> web.Response:
        _, grant = await self._introduced(request)
        if grant is None:
            raise refusal(web.HTTPConflict, "this node is not a member itself yet")
        return json_answer(grant)

    async def _introduced(self, request: web.Request) -> tuple[Peer, Grant | None]:
        """The caller as it describes itself, and what it is granted."""
        peer = _decode(await _small_body(request), Peer)
        if peer.id != request[CALLER]:
            raise refusal(web.HTTPForbidden, f"node {request[CALLER]} cannot join as {peer.id}")
        if request.remote:
            peer = _seen_at(peer, request.remote)
        try:
            return peer, await self._presence.gate.join(peer)
        except PermissionError as error:
            raise refusal(web.HTTPForbidden, str(error)) from error

    async def _stopping(self, request: web.Request) -> web.Response:
        try:
            timeout = float(request.query.get("timeout", "5"))
        except ValueError as error:
            raise refusal(web.HTTPBadRequest, f"timeout is no number: {error}") from error
        may_stop = await self._presence.gate.stopping(request[CALLER], min(max(timeout, 0.0), MAX_STOPPING_SECONDS))
        return json_answer(MayStop(may_stop))


OPEN_TO_BLANK = frozenset({"/peer/hello", "/peer/greet", "/peer/join", "/peer/promise"})
"""All that a node with the cluster's secret may call before it is a member."""


def json_answer(answer: object) -> web.Response:
    """For the calls of other rooms, too."""
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


def refusal(kind: Callable[..., web.HTTPException], reason: str) -> web.HTTPException:
    """To be raised; the caller reads `reason`."""
    return kind(text=reason)


def _decode(body: bytes, form: type[Peer]) -> Peer:
    try:
        return decode(body, form)
    except ValueError as error:
        raise refusal(web.HTTPBadRequest, str(error)) from error


def _seen_at(peer: Peer, remote: str) -> Peer:
    """Where the caller comes from is where it is best called back, unless it is no address for peers (IPv6)."""
    try:
        return with_first_address(peer, remote)
    except ValueError:
        return peer


async def _small_body(request: web.Request) -> bytes:
    """Up to BODY_BYTES, within STALL_SECONDS in all."""
    try:
        async with asyncio.timeout(STALL_SECONDS):
            return await request.read()
    except (TimeoutError, ConnectionError) as error:
        raise refusal(web.HTTPRequestTimeout, "the body did not come") from error
