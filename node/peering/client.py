"""Calls to other nodes: HTTP over mutual TLS, every call to a node id, whichever of its addresses answers."""

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

import aiohttp
import msgspec

from consensus.state import NodeId
from discovery.peer import Peer
from node.identity.pki import Identity
from node.identity.tls import clock_reason, secret_reason
from node.peering.connector import WrongPeer
from node.peering.sessions import CALL_SECONDS, CONNECT_SECONDS, PeerSessions
from node.peering.table import PeerTable
from node.peering.words import (
    ClocksDiffer,
    Grant,
    Greeting,
    MayStop,
    OtherSecret,
    PeerRefused,
    PeerUnreachable,
    decode,
)

READ_SECONDS = 10.0
"""A peer that sends nothing for so long is given up."""
MAX_ANSWER_BYTES = 1024 * 1024
GREETING_SECONDS = 5.0
"""For a greeting in all, handshake included: as long as the other side gives a handshake. A stopped process takes the
connection and says nothing; a machine on which many nodes start at once is slow, and asking again makes it slower."""


class PeerClient:
    """What this node asks of others, by their ids."""

    def __init__(self, identity: Identity, table: PeerTable, *, connect_seconds: float = CONNECT_SECONDS) -> None:
        self._sessions = PeerSessions(identity)
        self._table = table
        self._connect_seconds = connect_seconds

    async def disconnect(self, node: NodeId) -> None:
        """Cut every connection to `node`; calls that are under way raise PeerUnreachable."""
        await self._sessions.disconnect(node)

    async def renew(self) -> None:
        """Every call from here on has a connection with today's certificate; those under way keep theirs."""
        await self._sessions.renew()

    async def close(self) -> None:
        await self._sessions.close()

    # ------------------------------------------------------------ small calls
    async def greet(self, address: str, port: int, me: Peer, last: NodeId | None = None) -> Greeting:
        """Say who and where we are, and hear who is there: one handshake, and both know. It is kept for the next
        greeting, and for other calls; `last` is who answered there before.

        Raises PeerError, ValueError.
        """
        url, body = f"https://{address}:{port}/peer/greet", msgspec.json.encode(me)
        if last is not None and (known := self._sessions.kept(last)) is not None:
            async with self._sessions.using(known):
                greeting = decode(await self._read_stranger(known, "POST", url, body), Greeting)
            _own_word(last, greeting.peer)
            return greeting
        session, connector = self._sessions.to_stranger()
        kept = False
        try:
            greeting = decode(await self._read_stranger(session, "POST", url, body), Greeting)
            node = NodeId(_own_word(connector.met, greeting.peer).id)
            kept = self._sessions.keep(node, session, connector)
        finally:
            if not kept:
                await session.close()
        return greeting

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
        limits = self.limits(total=timeout)
        async with self.request(node, method, path, data=lambda: body, timeout=limits) as response:
            answer = await _read_small(response, node)
            if response.status >= 400:
                raise PeerRefused(node, response.status, answer[:500].decode(errors="replace"))
            return answer

    # ------------------------------------------------------------ any call
    def limits(self, *, total: float | None = None, sock_read: float | None = None) -> aiohttp.ClientTimeout:
        """Of one call, in seconds, with this client's own for the connection."""
        return aiohttp.ClientTimeout(total=total, sock_read=sock_read, sock_connect=self._connect_seconds)

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
        limits = timeout or self.limits(sock_read=READ_SECONDS)
        session = self._sessions.to(node)
        async with self._sessions.using(session):
            response = await self._first_answer(session, node, method, path, data, dict(headers or {}), limits)
            try:
                yield response
            except (aiohttp.ClientError, TimeoutError) as error:
                raise PeerUnreachable(f"the connection to node {node} broke: {_reason(error)}") from error
            finally:
                response.release()

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
