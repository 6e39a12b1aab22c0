"""The open HTTP sessions to other nodes: one a peer, kept, renewed and cut without harm to calls that are under way."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp

from consensus.state import NodeId
from node.identity.pki import Identity
from node.peering.connector import PeerConnector

CONNECT_SECONDS = 1.0
"""For TCP and TLS to one address, before the next is tried."""
CALL_SECONDS = 10.0
"""For a small call in all."""
READ_BUFFER_BYTES = 512 * 1024


class PeerSessions:
    """Made at the first call to a peer, over mutual TLS with this node's certificate."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._kept: dict[NodeId, aiohttp.ClientSession] = {}
        self._retired: list[tuple[NodeId, aiohttp.ClientSession]] = []
        self._under_way: Counter[aiohttp.ClientSession] = Counter()

    def to(self, node: NodeId) -> aiohttp.ClientSession:
        """The one to `node` and to nobody else."""
        found = self._kept.get(node)
        if found is None:
            found = self._kept[node] = _session(self._connector(node))
        return found

    def kept(self, node: NodeId) -> aiohttp.ClientSession | None:
        return self._kept.get(node)

    def to_stranger(self) -> tuple[aiohttp.ClientSession, PeerConnector]:
        """To whoever answers. The caller closes it, unless `keep` took it."""
        connector = self._connector(None)
        return _session(connector), connector

    def keep(self, node: NodeId, session: aiohttp.ClientSession, connector: PeerConnector) -> bool:
        """Take a session to a stranger, who proved to be `node`, for its further calls; False if it has one."""
        if node in self._kept:
            return False
        connector.pin()
        self._kept[node] = session
        return True

    @contextlib.asynccontextmanager
    async def using(self, session: aiohttp.ClientSession) -> AsyncIterator[None]:
        """A session that is put away meanwhile is closed after this."""
        self._under_way[session] += 1
        try:
            yield
        finally:
            self._under_way[session] -= 1
            if not self._under_way[session]:
                del self._under_way[session]
                await self._close_retired()

    async def disconnect(self, node: NodeId) -> None:
        """Cut every connection to `node`; calls that are under way raise PeerUnreachable."""
        gone = [session for other, session in (*self._kept.items(), *self._retired) if other == node]
        self._kept.pop(node, None)
        self._retired = [each for each in self._retired if each[0] != node]
        for session in gone:
            await session.close()

    async def renew(self) -> None:
        """Every call from here on has a connection with today's certificate; those under way keep theirs."""
        self._retired += self._kept.items()
        self._kept = {}
        await self._close_retired()

    async def _close_retired(self) -> None:
        """Of the sessions that were put away, those in which nothing is under way any more."""
        for node, session in [each for each in self._retired if not self._under_way[each[1]]]:
            if (node, session) in self._retired:  # another call may be at this, too
                self._retired.remove((node, session))
                await session.close()

    async def close(self) -> None:
        sessions = [*self._kept.values(), *(session for _, session in self._retired)]
        self._kept, self._retired = {}, []
        for session in sessions:
            await session.close()

    def _connector(self, node: NodeId | None) -> PeerConnector:
        return PeerConnector(self._identity.client_context(), self._identity.identify, node)


def _session(connector: PeerConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=CALL_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        read_bufsize=READ_BUFFER_BYTES,
    )
