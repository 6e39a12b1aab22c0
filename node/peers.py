"""Calls to other nodes: HTTP over mutual TLS, every call to a node id, whichever of its addresses answers."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol, TypeVar

import aiohttp
import msgspec

from consensus.state import NodeId
from discovery.peer import Peer
from node.peer_connector import PeerConnector, WrongPeer
from node.peer_table import PeerTable
from node.tls import clock_reason

CONNECT_SECONDS = 1.0
"""For TCP and TLS to one address, before the next is tried."""
READ_SECONDS = 10.0
"""A peer that sends nothing for so long is given up."""
CALL_SECONDS = 10.0
"""For a small call in all."""
MAX_ANSWER_BYTES = 1024 * 1024
READ_BUFFER_BYTES = 512 * 1024

REVOKED_STATUS = 410
"""What a member answers to a node that was removed for good: "gone", and not coming back."""

T = TypeVar("T")


class PeerError(Exception):
    """Root of the errors of calls to peers."""


class PeerUnreachable(PeerError):
    """No address of the node answers, or the connection broke. Nothing is known about the call's effect."""


class ClocksDiffer(PeerUnreachable):
    """A peer's certificate is outside its time by this node's clock, or ours by the peer's."""


class PeerRefused(PeerError):
    """The node answered with an error."""

    def __init__(self, node: str, status: int, reason: str) -> None:
        super().__init__(f"node {node} answered {status}: {reason}")
        self.status = status
        self.reason = reason


class Identity(Protocol):
    """What is needed of `node.pki.Identity`."""

    def client_context(self) -> ssl.SSLContext: ...

    def server_context(self) -> ssl.SSLContext: ...

    def identify(self, der: bytes | None) -> NodeId: ...


class Grant(msgspec.Struct, frozen=True):
    """The answer to a node that asks to join."""

    cluster_id: str
    genesis: str
    name: str


class MayStop(msgspec.Struct, frozen=True):
    """The leader's answer to a notice of stopping."""

    may_stop: bool


class PeerClient:
    """One HTTP session a peer, made at the first call and kept."""

    def __init__(self, identity: Identity, table: PeerTable) -> None:
        self._identity = identity
        self._table = table
        self._sessions: dict[NodeId, aiohttp.ClientSession] = {}

    async def disconnect(self, node: NodeId) -> None:
        """Cut every connection to `node`; calls that are under way raise PeerUnreachable."""
        if (session := self._sessions.pop(node, None)) is not None:
            await session.close()

    async def close(self) -> None:
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            await session.close()

    # ------------------------------------------------------------ small calls
    async def hello(self, address: str, port: int) -> Peer:
        """Who is there? Over mutual TLS, so the answer is that node's own. Raises PeerError, ValueError."""
        connector = self._connector(None)
        async with self._session_over(connector) as session:
            body = await self._read_hello(session, f"https://{address}:{port}/peer/hello")
        peer = decode(body, Peer)
        if peer.id != connector.met:
            raise PeerRefused(str(connector.met), 200, f"it calls itself {peer.id}")
        return peer

    async def table(self, node: NodeId) -> tuple[Peer, ...]:
        """The peers that this node knows. Raises PeerError, ValueError."""
        return decode(await self.call(node, "GET", "/peer/table"), tuple[Peer, ...])

    async def join(self, node: NodeId, me: Peer) -> Grant:
        """Ask a member to be let in. Raises PeerError, ValueError."""
        return decode(await self.call(node, "POST", "/peer/join", msgspec.json.encode(me)), Grant)

    async def notify_stopping(self, node: NodeId, timeout: float) -> bool:
        """Tell the leader that this node stops. True when it may; False when `node` cannot say. Raises PeerError."""
        path = f"/peer/stopping?timeout={timeout:g}"
        answer = await self.call(node, "POST", path, timeout=timeout + CALL_SECONDS)
        return decode(answer, MayStop).may_stop

    async def post(self, node: NodeId, path: str, body: bytes = b"", timeout: float = CALL_SECONDS) -> bytes:
        return await self.call(node, "POST", path, body, timeout)

    async def call(
        self, node: NodeId, method: str, path: str, body: bytes | None = None, timeout: float = CALL_SECONDS
    ) -> bytes:
        """A small call; the answer's body, at most 1 MiB.

        Raises:
            PeerUnreachable: no answer.
            PeerRefused: a status of 400 or more.
        """
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=CONNECT_SECONDS)
        async with self.request(node, method, path, data=lambda: body, timeout=limits) as response:
            answer = await response.content.read(MAX_ANSWER_BYTES + 1)
            while not response.content.at_eof() and len(answer) <= MAX_ANSWER_BYTES:
                answer += await response.content.read(MAX_ANSWER_BYTES)
            if len(answer) > MAX_ANSWER_BYTES:
                raise PeerRefused(node, response.status, "the answer is too long")
            if response.status >= 400:
                raise PeerRefused(node, response.status, answer[:500].decode(errors="replace"))
            return answer

    # ------------------------------------------------------------ any call
    @contextlib.asynccontextmanager
    async def request(
        self,
        node: NodeId,
        method: str,
        path: str,
        *,
        data: Callable[[], object] = lambda: None,
        headers: Mapping[str, str] | None = None,
        timeout: aiohttp.ClientTimeout | None = None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The open answer of `node`, from the first of its addresses that takes a connection.

        `data` makes the body anew for each attempt. A connection that breaks later, also while the caller
        reads, raises PeerUnreachable: the call is not repeated, as its effect is unknown.
        """
        limits = timeout or aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        response = await self._first_answer(node, method, path, data, dict(headers or {}), limits)
        try:
            yield response
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PeerUnreachable(f"the connection to node {node} broke: {_reason(error)}") from error
        finally:
            response.release()

    async def _first_answer(
        self,
        node: NodeId,
        method: str,
        path: str,
        data: Callable[[], object],
        headers: dict[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        failures = []
        for address, port in self._table.places(node):
            url = f"https://{address}:{port}{path}"
            try:
                return await self._session(node).request(method, url, data=data(), headers=headers, timeout=timeout)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, WrongPeer) as error:
                failures.append(f"{address}: {_reason(error)}")
            except (aiohttp.ClientError, TimeoutError) as error:
                raise PeerUnreachable(f"the call to node {node} at {address} failed: {_reason(error)}") from error
        raise PeerUnreachable(f"node {node} cannot be reached ({'; '.join(failures) or 'no address is known'})")

    async def _read_hello(self, session: aiohttp.ClientSession, url: str) -> bytes:
        try:
            async with session.get(url) as response:
                body = await response.content.read(64 * 1024)
                if response.status != 200:
                    raise PeerRefused(url, response.status, body[:500].decode(errors="replace"))
                return body
        except (aiohttp.ClientError, TimeoutError, WrongPeer) as error:
            if said := clock_reason(error):
                raise ClocksDiffer(f"{url}: {said}") from error
            raise PeerUnreachable(f"{url}: {_reason(error)}") from error

    def _session(self, node: NodeId) -> aiohttp.ClientSession:
        found = self._sessions.get(node)
        if found is None:
            found = self._sessions[node] = self._session_over(self._connector(node))
        return found

    def _connector(self, node: NodeId | None) -> PeerConnector:
        return PeerConnector(self._identity.client_context(), self._identity.identify, node)

    def _session_over(self, connector: PeerConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            read_bufsize=READ_BUFFER_BYTES,
        )


def decode(body: bytes, form: type[T]) -> T:
    """What a peer sent as JSON. Raises ValueError for everything else, however deeply nested."""
    try:
        return msgspec.json.decode(body, type=form)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
