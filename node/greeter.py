"""Turns hints into known peers: dials each place, learns over mutual TLS who is there, and introduces this node."""

import asyncio
import time
from collections.abc import Callable, Iterable, Set

from consensus.state import NodeId
from discovery.peer import Peer
from discovery.watcher import Watcher
from node import logs
from node.peer_table import PeerTable
from node.peers import REVOKED_STATUS, ClocksDiffer, Grant, PeerClient, PeerError, PeerRefused

TICK_SECONDS = 0.25
AT_ONCE = 8
"""Greetings under way together: a flood of hints must not become a flood of handshakes."""
AGAIN_SECONDS = 2.0
"""A peer that Raft is not connected to is greeted again after this: it may have moved."""
AGAIN_SECONDS_A_PLACE = 0.1
"""Where many places are known the pause is longer: N nodes that start together greet N² times, two handshakes each."""
CONNECTED_SECONDS = 300.0
"""Whoever Raft is connected to has proved by that all that a greeting would ask."""
FORGET_SECONDS = 3.0
"""A peer that has not answered for so long, though it was called, is not in sight any more."""
BACKOFF_FIRST, BACKOFF_MOST = 0.25, 5.0
SAY_AGAIN_SECONDS = 60.0
"""Between warnings about the same place."""

Place = tuple[str, int]

_log = logs.get("greeter")


class Greeter:
    """Greets until stopped. `met` are the peers that answered lately; `grant` is the newest offer to join."""

    def __init__(
        self,
        client: PeerClient,
        table: PeerTable,
        watcher: Watcher,
        me: Callable[[], Peer],
        connected: Callable[[], Set[NodeId]],
        on_news: Callable[[], None],
        on_removed: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._client = client
        self._table = table
        self._watcher = watcher
        self.me = me
        self._connected = connected
        self._on_news = on_news
        self._on_removed = on_removed
        self._warned: dict[Place, float] = {}
        self._due: dict[Place, float] = {}
        self._settled: frozenset[Place] = frozenset()
        self._backoff: dict[Place, float] = {}
        self._again = AGAIN_SECONDS
        self._answered: dict[NodeId, float] = {}
        self._at: dict[Place, NodeId] = {}
        self.met: dict[NodeId, Peer] = {}
        self.grant: Grant | None = None
        self.newest = time.monotonic()
        """When the last new peer came into sight."""

    async def run(self) -> None:
        while True:
            await self.greet_due()
            await asyncio.sleep(TICK_SECONDS)

    async def greet_due(self) -> None:
        """Greet every place whose time has come; returns when all have answered or failed."""
        now, places = time.monotonic(), [*self._places()]
        self._settle(now)
        self._again = again_after(len(places))
        due = [place for place in places if self._due.get(place, 0.0) <= now][: AT_ONCE * 4]
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(place: Place) -> None:
            async with gate:
                await self._greet(*place)

        await asyncio.gather(*(one(place) for place in due))

    def _settle(self, now: float) -> None:
        """Places of peers that Raft is connected to can wait; one whose connection has ended is due at once."""
        found = (self._table.places(node)[:1] for node in self._connected())
        settled = frozenset(place for places in found for place in places)
        for place in settled - self._settled:
            self._due[place] = now + CONNECTED_SECONDS
        for place in self._settled - settled:
            self._due[place] = now
        self._settled = settled

    def _places(self) -> Iterable[Place]:
        """Hints, and where members that Raft has lost were last; each once."""
        places: dict[Place, None] = {}
        connected = self._connected()
        for hint in sorted(self._watcher.hints):
            places[hint.address, hint.peer_port] = None
        for peer in self._table.peers():
            if NodeId(peer.id) not in connected:
                places.update(dict.fromkeys(self._table.places(NodeId(peer.id))))
        return places

    async def _greet(self, address: str, port: int) -> None:
        place = (address, port)
        try:
            peer = await self._client.hello(address, port)
        except (PeerError, ValueError) as error:
            backoff = min(self._backoff.get(place, BACKOFF_FIRST / 2) * 2, BACKOFF_MOST)
            self._backoff[place] = backoff
            self._due[place] = time.monotonic() + backoff
            self._forget(place)
            self._say_why(place, error)
            return
        self._backoff.pop(place, None)
        node = NodeId(peer.id)
        if node == self.me().id:
            self._due[place] = time.monotonic() + CONNECTED_SECONDS
            return
        if node not in self.met:
            self.newest = time.monotonic()
            _log.info("peer.met", peer=node, address=address, state=peer.state)
        self.met[node] = peer
        self._answered[node], self._at[place] = time.monotonic(), node
        known_before = self._table.places(node)
        if self._table.learn(peer, address) or not known_before:
            self._on_news()
        settled = node in self._connected()
        self._due[place] = time.monotonic() + (CONNECTED_SECONDS if settled else self._again)
        await self._introduce(node)

    def _forget(self, place: Place) -> None:
        """Whoever answered there last is out of sight, unless it has answered elsewhere lately."""
        node = self._at.get(place)
        if node is None or time.monotonic() - self._answered[node] < FORGET_SECONDS:
            return
        del self._at[place]
        self.met.pop(node, None)
        self._table.forget(node)

    def _say_why(self, place: Place, error: Exception) -> None:
        """Silence is the rule, since most hints are stale; what an operator must mend is said aloud."""
        address, port = place
        now = time.monotonic()
        if isinstance(error, PeerRefused) and error.status == REVOKED_STATUS:
            self._on_removed(error.reason)
        elif isinstance(error, ClocksDiffer) and now - self._warned.get(place, -SAY_AGAIN_SECONDS) >= SAY_AGAIN_SECONDS:
            self._warned[place] = now
            _log.warning("peer.clock", address=address, port=port, reason=str(error))
        else:
            _log.debug("peer.not_there", address=address, port=port, reason=str(error))

    async def _introduce(self, node: NodeId) -> None:
        """Tell the peer who and where we are; a member answers with what is needed to join."""
        try:
            self.grant = await self._client.join(node, self.me())
        except PeerRefused as error:
            if error.status == REVOKED_STATUS:
                self._on_removed(error.reason)
            elif error.status != 409:  # 409: it is blank as well, and knows us now
                _log.warning("peer.refused_us", peer=node, reason=error.reason)
        except (PeerError, ValueError) as error:
            _log.debug("peer.lost", peer=node, reason=str(error))


def again_after(places: int) -> float:
    """Seconds until a peer that Raft is not connected to is greeted again."""
    return max(AGAIN_SECONDS, places * AGAIN_SECONDS_A_PLACE)
