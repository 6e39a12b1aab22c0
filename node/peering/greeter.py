"""Turns hints into known peers: dials each place, learns over mutual TLS who is there, and introduces this node."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Set

from consensus.state import NodeId
from discovery.merging import Standing
from discovery.peer import Hint, Peer
from discovery.watcher import Watcher
from node import logs
from node.peering.client import PeerClient
from node.peering.table import PeerTable
from node.peering.words import REVOKED_STATUS, ClocksDiffer, Greeting, OtherSecret, PeerError, PeerRefused

TICK_SECONDS = 0.25
AT_ONCE = 4
"""Greetings under way together: a flood of hints must not become a flood of handshakes, and where all nodes share one
machine that is slow, none may pile up that time out and begin again."""
AGAIN_SECONDS = 2.0
"""A peer that Raft is not connected to is greeted again after this: it may have moved."""
AGAIN_SECONDS_A_PLACE = 0.1
"""Where many places are known the pause is longer: N blank nodes that start together greet N² times a round."""
AGAIN_DURATIONS = 10
"""Nor more often than once in so many times what greetings take: they may be what a machine is busy with."""
CONNECTED_SECONDS = 300.0
"""Whoever Raft is connected to has proved by that all that a greeting would ask."""
FORGET_SECONDS, FORGET_FAILURES = 3.0, 2
"""A peer that has not answered for so long, though it was called so often, is not in sight any more."""
BACKOFF_FIRST, BACKOFF_MOST = 0.25, 5.0
PATIENCE_SECONDS = 5.0
"""A new member is left to Raft for so long: it dials every member by itself."""
HOLD_SECONDS = 2.0
"""A blank node that was granted to join greets nobody else meanwhile: most places can wait until it is in."""
SAY_AGAIN_SECONDS = 60.0
"""Between warnings about the same place."""

MAX_SPREAD = 128
"""Places that peers have told: of the watcher's 256 hints the seeds and mDNS keep a share."""

Place = tuple[str, int]

_log = logs.get("greeter")


class Greeter:
    """Greets until stopped. `met` are the peers that answered lately."""

    def __init__(
        self,
        client: PeerClient,
        table: PeerTable,
        watcher: Watcher,
        me: Callable[[], Peer],
        connected: Callable[[], Set[NodeId]],
        on_removed: Callable[[str], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._table = table
        self._watcher = watcher
        self.me = me
        self._connected = connected
        self._on_removed = on_removed
        self._clock = clock
        self._warned: dict[Place, float] = {}
        self._due: dict[Place, float] = {}
        self._settled: frozenset[Place] = frozenset()
        self._backoff: dict[Place, float] = {}
        self._again = AGAIN_SECONDS
        self._takes = 0.0
        self._failures: dict[Place, int] = {}
        self._answered: dict[NodeId, float] = {}
        self._at: dict[Place, NodeId] = {}
        self.met: dict[NodeId, Peer] = {}
        self.standings: dict[NodeId, Standing] = {}
        """What those of them that belong to other clusters say of theirs."""
        self._spread: frozenset[Hint] = frozenset()
        self._under_way: set[Place] = set()
        self._hold_until = 0.0
        self._wake = asyncio.Event()
        self.news = asyncio.Event()
        """Set when another peer, or another state of one, has come into sight; whoever waits for it clears it."""
        self.newest = clock()
        """When the last new peer came into sight."""
        table.on_news(self.look_again)

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self.greet_due(group)
                    self._wake.clear()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(TICK_SECONDS):
                            await self._wake.wait()
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None  # e.g. DuplicateIdentity: whoever ends the node says why

    async def greet_at(self, peer: Peer) -> bool:
        """Greet at the places of `peer`, in order, until something answers there."""
        for hint in peer.hints:
            if await self._greet(hint.address, hint.peer_port):
                return True
        return False

    def look_again(self) -> None:
        """Greet soon: something has changed of this node or of those that it knows."""
        self._wake.set()

    def tell_all(self) -> None:
        """This node belongs to a cluster now: whoever waits for one should hear of it at once."""
        self._due.clear()
        self._hold_until = 0.0
        self._wake.set()

    def greet_due(self, group: asyncio.TaskGroup) -> None:
        """Greet every place whose time has come, each in a task of its own: a peer that is silent holds up no other."""
        now, places = self._clock(), [*self._places()]
        self._settle(now)
        self._again = again_after(len(places), self._takes)
        if now < self._hold_until and self.me().state == "blank":
            return
        due = (place for place in places if self._due.get(place, 0.0) <= now and place not in self._under_way)
        for place in [*due][: AT_ONCE - len(self._under_way)]:
            self._under_way.add(place)
            group.create_task(self._greet_alone(place), name=f"greet-{place[0]}:{place[1]}")

    async def _greet_alone(self, place: Place) -> None:
        try:
            await self._greet(*place)
        finally:
            self._under_way.discard(place)
            self._wake.set()

    def _settle(self, now: float) -> None:
        """Places of peers that Raft is connected to can wait; one whose connection has ended is due at once."""
        found = (self._table.places(node)[:1] for node in self._settled_nodes())
        settled = frozenset(place for places in found for place in places)
        for place in settled - self._settled:
            self._due[place] = now + CONNECTED_SECONDS
        for place in self._settled - settled:
            self._due[place] = now
        self._settled = settled

    def _settled_nodes(self) -> frozenset[NodeId]:
        """Those of whom Raft's connection says all that a greeting would. Not those that were members of another
        cluster when they last answered: whoever Raft has reached since has come over, and is to say so."""
        ours = self.me().cluster_id
        elsewhere = {node for node, met in self.met.items() if met.state == "member" and met.cluster_id != ours}
        return frozenset(self._connected() - elsewhere)

    def _places(self) -> Iterable[Place]:
        """Hints, and where members that Raft has lost were last; each once, without those that Raft will reach."""
        places = {(hint.address, hint.peer_port): None for hint in sorted(self._watcher.hints)}
        new, settled = self._table.new_members(PATIENCE_SECONDS), self._settled_nodes()
        for peer in self._table.peers():
            node = NodeId(peer.id)
            known = dict.fromkeys(self._table.places(node))
            if node in new:
                places = {place: None for place in places if place not in known}
            elif node not in settled:
                places |= known
                if node in self.met and self.met[node].state != peer.state:  # it has told us so itself
                    self._due.update((place, 0.0) for place in known if place not in self._backoff)
        return places

    async def _greet(self, address: str, port: int) -> bool:
        """Returns whether a peer answered."""
        place, begun = (address, port), self._clock()
        try:
            greeting = await self._client.greet(address, port, self.me(), self._at.get(place))
        except (PeerError, ValueError) as error:
            backoff = min(self._backoff.get(place, BACKOFF_FIRST / 2) * 2, BACKOFF_MOST)
            self._backoff[place] = backoff
            self._failures[place] = self._failures.get(place, 0) + 1
            self._due[place] = self._clock() + backoff
            self._forget(place)
            self._say_why(place, error)
            return False
        self._backoff.pop(place, None)
        self._failures.pop(place, None)
        self._takes += (self._clock() - begun - self._takes) / 8
        if greeting.peer.id == self.me().id:
            self._due[place] = self._clock() + CONNECTED_SECONDS
            return False
        self._heard(place, greeting)
        return True

    def _heard(self, place: Place, greeting: Greeting) -> None:
        peer, node = greeting.peer, NodeId(greeting.peer.id)
        if node not in self.met:
            self.newest = self._clock()
            _log.info("peer.met", peer=node, address=place[0], state=peer.state)
        if node not in self.met or self.met[node].state != peer.state:
            self.news.set()
        self.met[node] = peer
        self._answered[node], self._at[place] = self._clock(), node
        self._table.learn(peer, place[0])
        self._due[place] = self._clock() + (CONNECTED_SECONDS if node in self._settled_nodes() else self._again)
        if greeting.grant is not None:
            self._hold_until = self._clock() + HOLD_SECONDS
        if greeting.standing is not None:
            self.standings[node] = greeting.standing
        else:
            self.standings.pop(node, None)
        self._told(greeting)

    def _told(self, greeting: Greeting) -> None:
        """Whom a peer knows are further places to dial, no more: each proves by itself who it is."""
        leader = (greeting.grant.leader,) if greeting.grant is not None and greeting.grant.leader is not None else ()
        self.hear_of(frozenset(hint for peer in (*leader, *greeting.known) for hint in peer.hints))

    def hear_of(self, hints: frozenset[Hint]) -> None:
        """Places to greet that authenticated peers have told of."""
        if not hints <= self._spread:
            self._spread = frozenset(sorted(hints | self._spread)[:MAX_SPREAD])
            self._watcher.offer("peers", self._spread)

    def _forget(self, place: Place) -> None:
        """Whoever answered there last is out of sight, unless it has answered elsewhere lately."""
        node = self._at.get(place)
        if node is None or self._failures[place] < FORGET_FAILURES:
            return
        if self._clock() - self._answered[node] < FORGET_SECONDS:
            return
        del self._at[place]
        self.met.pop(node, None)
        self.standings.pop(node, None)
        self._table.forget(node)

    def _say_why(self, place: Place, error: Exception) -> None:
        """Silence is the rule, since most hints are stale; what an operator must mend is said aloud."""
        address, port = place
        now = self._clock()
        if isinstance(error, PeerRefused) and error.status == REVOKED_STATUS:
            self._on_removed(error.reason)
        elif isinstance(error, ClocksDiffer) and now - self._warned.get(place, -SAY_AGAIN_SECONDS) >= SAY_AGAIN_SECONDS:
            self._warned[place] = now
            _log.warning("peer.clock", address=address, port=port, reason=str(error))
        elif isinstance(error, OtherSecret) and now - self._warned.get(place, -SAY_AGAIN_SECONDS) >= SAY_AGAIN_SECONDS:
            self._warned[place] = now
            _log.warning("peer.other_secret", address=address, port=port, reason=str(error))
        elif isinstance(error, PeerRefused) and now - self._warned.get(place, -SAY_AGAIN_SECONDS) >= SAY_AGAIN_SECONDS:
            self._warned[place] = now
            _log.warning("peer.refused_us", address=address, port=port, reason=error.reason)
        else:
            _log.debug("peer.not_there", address=address, port=port, reason=str(error))


def again_after(places: int, takes: float = 0.0) -> float:
    """Seconds until a peer that Raft is not connected to is greeted again, when a greeting takes `takes` seconds."""
    return max(AGAIN_SECONDS, places * AGAIN_SECONDS_A_PLACE, takes * AGAIN_DURATIONS)
