"""Calls to other nodes: HTTP over mutual TLS, every call to a node id, whichever of its addresses answers."""

import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol, TypeVar

import aiohttp
import msgspec

from consensus.state import NodeId
from discovery.peer import Peer
from node.peer_connector import PeerConnector, WrongPeer
from node.peer_table import PeerTable
from node.tls import clock_reason, secret_reason

CONNECT_SECONDS = 1.0
"""For TCP and TLS to one address, before the next is tried."""
READ_SECONDS = 10.0
"""A peer that sends nothing for so long is given up."""
CALL_SECONDS = 10.0
"""For a small call in all."""
MAX_ANSWER_BYTES = 1024 * 1024
READ_BUFFER_BYTES = 512 * 1024
GREETING_SECONDS = 5.0
"""For a greeting in all, handshake included: as long as the other side gives a handshake. A stopped process takes the
connection and says nothing; a machine on which many nodes start at once is slow, and asking again makes it slower."""

REVOKED_STATUS = 410
"""What a member answers to a node that was removed for good: "gone", and not coming back."""

T = TypeVar("T")


class PeerError(Exception):
    """Root of the errors of calls to peers."""


class PeerUnreachable(PeerError):
    """No address of the node answers, or the connection broke. Nothing is known about the call's effect."""


class ClocksDiffer(PeerUnreachable):
    """A peer's certificate is outside its time by this node's clock, or ours by the peer's."""


class OtherSecret(PeerUnreachable):
    """A node answered that has another cluster secret."""


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
    leader: Peer | None = None
    """Who must know the newcomer before its registration can be committed; None if it is who answers, or unknown."""


class Greeting(msgspec.Struct, frozen=True):
    """The answer to a node that says who and where it is."""

    peer: Peer
    grant: Grant | None = None
    """How to join, from a member of the greeter's cluster or to a blank greeter."""
    known: tuple[Peer, ...] = ()
    """Others that a blank greeter may want to know, at most `MAX_TOLD`."""


MAX_TOLD = 64
"""Of them one is enough to get in; the members' own log says where the rest are."""


class MayStop(msgspec.Struct, frozen=True):
    """The leader's answer to a notice of stopping."""

    may_stop: bool


class PeerClient:
    """One HTTP session a peer, made at the first call and kept."""

    def __init__(self, identity: Identity, table: PeerTable) -> None:
        self._identity = identity
        self._table = table
        self._sessions: dict[NodeId, aiohttp.ClientSession] = {}
        self._retired: list[tuple[NodeId, aiohttp.ClientSession]] = []
        self._under_way: Counter[aiohttp.ClientSession] = Counter()

    async def disconnect(self, node: NodeId) -> None:
        """Cut every connection to `node`; calls that are under way raise PeerUnreachable."""
        gone = [session for other, session in (*self._sessions.items(), *self._retired) if other == node]
        self._sessions.pop(node, None)
        self._retired = [each for each in self._retired if each[0] != node]
        for session in gone:
            await session.close()

    async def renew(self) -> None:
        """Every call from here on has a connection with today's certificate; those under way keep theirs."""
        self._retired += self._sessions.items()
        self._sessions = {}
        await self._close_retired()

    async def _close_retired(self) -> None:
        """Of the sessions that were put away, those in which nothing is under way any more."""
        for node, session in [each for each in self._retired if not self._under_way[each[1]]]:
            if (node, session) in self._retired:  # another call may be at this, too
                self._retired.remove((node, session))
                await session.close()

    async def close(self) -> None:
        sessions = [*self._sessions.values(), *(session for _, session in self._retired)]
        self._sessions, self._retired = {}, []
        for session in sessions:
            await session.close()

    # ------------------------------------------------------------ small calls
    async def hello(self, address: str, port: int) -> Peer:
        """Who is there? Over mutual TLS, so the answer is that node's own. Raises PeerError, ValueError."""
        met, body = await self._ask_stranger("GET", f"https://{address}:{port}/peer/hello")
        return _own_word(met, decode(body, Peer))

    async def greet(self, address: str, port: int, me: Peer, last: NodeId | None = None) -> Greeting:
        """Say who and where we are, and hear who is there: one handshake, and both know. It is kept for the next
        greeting, and for other calls; `last` is who answered there before.

        Raises PeerError, ValueError.
        """
        url, body = f"https://{address}:{port}/peer/greet", msgspec.json.encode(me)
        if last is not None and (known := self._sessions.get(last)) is not None:
            async with self._using(known):
                greeting = decode(await self._read_stranger(known, "POST", url, body), Greeting)
            _own_word(last, greeting.peer)
            return greeting
        connector = self._connector(None)
        session: aiohttp.ClientSession | None = self._session_over(connector)
        try:
            assert session is not None  # noqa: S101  for the type checker
            greeting = decode(await self._read_stranger(session, "POST", url, body), Greeting)
            node = NodeId(_own_word(connector.met, greeting.peer).id)
            if node not in self._sessions:
                connector.pin()
                self._sessions[node], session = session, None
        finally:
            if session is not None:
                await session.close()
        return greeting

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
            answer = await _read_small(response, node)
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
        session = self._session(node)
        async with self._using(session):
            response = await self._first_answer(session, node, method, path, data, dict(headers or {}), limits)
            try:
                yield response
            except (aiohttp.ClientError, TimeoutError) as error:
                raise PeerUnreachable(f"the connection to node {node} broke: {_reason(error)}") from error
            finally:
                response.release()

    @contextlib.asynccontextmanager
    async def _using(self, session: aiohttp.ClientSession) -> AsyncIterator[None]:
        """A session that is put away meanwhile is closed after this."""
        self._under_way[session] += 1
        try:
            yield
        finally:
            self._under_way[session] -= 1
            if not self._under_way[session]:
                del self._under_way[session]
                await self._close_retired()

    async def _first_answer(
        self,
        session: aiohttp.ClientSession,
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
                return await session.request(method, url, data=data(), headers=headers, timeout=timeout)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, WrongPeer) as error:
                failures.append(f"{address}: {_reason(error)}")
            except (aiohttp.ClientError, TimeoutError) as error:
                raise PeerUnreachable(f"the call to node {node} at {address} failed: {_reason(error)}") from error
        raise PeerUnreachable(f"node {node} cannot be reached ({'; '.join(failures) or 'no address is known'})")

    async def _ask_stranger(self, method: str, url: str, data: bytes | None = None) -> tuple[NodeId | None, bytes]:
        """Who answered there, by its certificate, and what it said."""
        connector = self._connector(None)
        async with self._session_over(connector) as session:
            body = await self._read_stranger(session, method, url, data)
        return connector.met, body

    async def _read_stranger(self, session: aiohttp.ClientSession, method: str, url: str, data: bytes | None) -> bytes:
        limits = aiohttp.ClientTimeout(total=GREETING_SECONDS)
        try:
            async with session.request(method, url, data=data, timeout=limits) as response:
                body = await _read_small(response, url)
                if response.status != 200:
                    raise PeerRefused(url, response.status, body[:500].decode(errors="replace"))
                return body
        except (aiohttp.ClientError, TimeoutError, WrongPeer) as error:
            if said := clock_reason(error):
                raise ClocksDiffer(f"{url}: {said}") from error
            if said := secret_reason(error):
                raise OtherSecret(f"{url}: {said}") from error
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


async def _read_small(response: aiohttp.ClientResponse, asked: str) -> bytes:
    """The whole body. Raises PeerRefused for one of more than MAX_ANSWER_BYTES."""
    answer = await response.content.read(MAX_ANSWER_BYTES + 1)
    while not response.content.at_eof() and len(answer) <= MAX_ANSWER_BYTES:
        answer += await response.content.read(MAX_ANSWER_BYTES)
    if len(answer) > MAX_ANSWER_BYTES:
        raise PeerRefused(asked, response.status, "the answer is too long")
    return answer


def _own_word(met: NodeId | None, peer: Peer) -> Peer:
    """What a peer says of itself, if its certificate says the same."""
    if peer.id != met:
        raise PeerRefused(str(met), 200, f"it calls itself {peer.id}")
    return peer


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
