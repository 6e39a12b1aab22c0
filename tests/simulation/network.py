"""Connections as the transport has them: bytes in order within one, each end noticing by itself that it is over.

So a server may send again over a new connection what its peer still reads from the old one.
"""

import random
from collections import deque
from collections.abc import Callable

import msgspec

from consensus.wire.frames import Beacon, FrameCodec, FrameReader, Message
from consensus.wire.transport import IDLE_SECONDS
from tests.simulation.clock import Clock

_FRAMES = FrameCodec("simulated")
_HELLO = _FRAMES.encode(Beacon(b""))
_BEACON_SECONDS = 1.0


class End:
    """One end of a connection. `queue` is what travels towards it: (due at, frame); no frame ends the connection."""

    def __init__(self, owner: str, peer: str, now: float) -> None:
        self.owner, self.peer = owner, peer
        self.other: End = self
        self.open, self.up = True, False
        self.heard_at = self.beacon_at = now
        self.queue: deque[tuple[float, bytes]] = deque()
        self.reader = FrameReader(_FRAMES)

    def close(self, *, at_once: bool) -> None:
        """The other end reads what is on its way, or loses it, and then the end of the stream."""
        self.open = False
        self.queue.clear()
        if at_once:
            self.other.queue.clear()
        self.other.queue.append((0.0, b""))


class Events:
    """What the world does when a link comes, goes, or brings a message."""

    def __init__(
        self,
        on_up: Callable[[str, str], None],
        on_down: Callable[[str, str], None],
        on_message: Callable[[str, str, Message], None],
    ) -> None:
        self.on_up, self.on_down, self.on_message = on_up, on_down, on_message


def at_once(sender: str, to: str, message: Message) -> tuple[float, ...]:
    """No message is late."""
    return (0.0,)


class Held(msgspec.Struct, frozen=True):
    """A message that travels apart from its connection, and outlives it."""

    due: float
    sender: str
    to: str
    message: Message


class SimNetwork:
    """All connections. `blocked` are the directions (sender, receiver) in which nothing arrives just now."""

    def __init__(self, clock: Clock, rng: random.Random, events: Events) -> None:
        self._clock, self._rng, self._events = clock, rng, events
        self.blocked: set[tuple[str, str]] = set()
        self.chaotic = False
        """Frames are also repeated and overtaken: more than TCP would ever do."""
        self.delay: Callable[[str, str, Message], tuple[float, ...]] = at_once
        """Seconds that each copy of a message takes: several repeat it, none loses it, and one that takes more than
        none arrives whatever becomes of its connection."""
        self.held: list[Held] = []
        self.links: dict[tuple[str, str], End] = {}
        """The connection that a server (first) uses to reach another."""
        self._ends: list[End] = []

    # ------------------------------------------------------------ connections
    def dial(self, servers: list[str]) -> None:
        """The higher of each pair dials when it has no connection, and both directions are free."""
        dialled = {(end.owner, end.peer) for end in self._ends if end.open}
        for high in servers:
            for low in servers:
                free = (high, low) not in self.blocked and (low, high) not in self.blocked
                if low < high and free and (high, low) not in dialled:
                    self._connect(high, low)

    def _connect(self, high: str, low: str) -> None:
        ends = End(high, low, self._clock.now), End(low, high, self._clock.now)
        ends[0].other, ends[1].other = ends[1], ends[0]
        for end in ends:
            end.queue.append((self._clock.now, _HELLO))
        self._ends += ends

    def reset(self, owner: str, peer: str) -> None:
        """`owner` drops its connection."""
        link = self.links.get((owner, peer))
        if link is not None:
            self._close(link)

    def _close(self, end: End) -> None:
        end.close(at_once=self._rng.random() < 0.5)
        self._ends.remove(end)
        if self.links.get((end.owner, end.peer)) is end:
            del self.links[end.owner, end.peer]
            self._events.on_down(end.owner, end.peer)

    def vanish(self, owner: str, *, silently: bool) -> None:
        """The process is gone; silently if not even its kernel is left to say so. What it has not let go of yet
        (a slow sync holds it) is never sent."""
        for end in [end for end in self._ends if end.owner == owner]:
            other = end.other
            other.queue = deque(item for item in other.queue if item[0] <= self._clock.now)
            if not silently:
                other.queue.append((0.0, b""))
            end.open = False
            self._ends.remove(end)
            self.links.pop((owner, end.peer), None)

    def sweep(self, owner: str) -> None:
        """What the transport of one server does every now and then: drop what is silent, send beacons."""
        now = self._clock.now
        for end in [end for end in self._ends if end.owner == owner]:
            if now - end.heard_at > IDLE_SECONDS:
                self._close(end)
            elif end.up and now >= end.beacon_at:
                end.beacon_at = now + _BEACON_SECONDS
                end.other.queue.append((now, _HELLO))

    # ------------------------------------------------------------ messages
    def linked(self, sender: str, to: str) -> bool:
        return (sender, to) in self.links

    def send(self, sender: str, to: str, message: Message, due: float) -> None:
        link = self.links.get((sender, to))
        if link is None or not link.other.open:
            return
        for seconds in self.delay(sender, to, message):
            if seconds:
                self.held.append(Held(due + seconds, sender, to, message))
            else:
                link.other.queue.append((due, _FRAMES.encode(message)))

    def release(self, runs: Callable[[str], bool]) -> list[Held]:
        """The late messages that arrive now."""
        if not self.held:
            return []
        arrived = [
            each
            for each in self.held
            if each.due <= self._clock.now
            and (each.to, each.sender) in self.links
            and (each.sender, each.to) not in self.blocked
            and runs(each.to)
        ]
        self.held = [each for each in self.held if each not in arrived] if arrived else self.held
        return arrived

    def busy(self) -> list[End]:
        """Ends for which something has arrived."""
        now = self._clock.now
        return [
            end
            for end in self._ends
            if end.queue and end.queue[0][0] <= now and (end.peer, end.owner) not in self.blocked
        ]

    def deliver(self, end: End) -> bool:
        """The next frame, if there is one that has arrived."""
        if not end.open or not end.queue or end.queue[0][0] > self._clock.now:
            return False
        frame = self._next_frame(end)
        if not frame:
            self._close(end)
            return False
        end.heard_at = self._clock.now
        for message in end.reader.feed(frame):
            self._received(end, message)
        return True

    def _next_frame(self, end: End) -> bytes:
        if self.chaotic and len(end.queue) > 1 and self._rng.random() < 0.2:
            end.queue.rotate(-1) if end.queue[1][1] and end.queue[1][0] <= self._clock.now else None
        due, frame = end.queue.popleft()
        if self.chaotic and frame and self._rng.random() < 0.1:
            end.queue.insert(self._rng.randint(0, len(end.queue)), (due, frame))
        return frame

    def _received(self, end: End, message: Message) -> None:
        if not end.open:
            return
        if not end.up:
            old = self.links.get((end.owner, end.peer))
            if old is not None:
                self._close(old)
            end.up = True
            self.links[end.owner, end.peer] = end
            self._events.on_up(end.owner, end.peer)
        if self.links.get((end.owner, end.peer)) is end and not isinstance(message, Beacon):
            self._events.on_message(end.owner, end.peer, message)
