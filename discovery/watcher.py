"""Merges all sources into one set of hints, debounced and bounded."""

import asyncio
import logging
from collections.abc import Sequence

from discovery import tasks
from discovery.peer import Hint
from discovery.sources import DiscoveryError, PeerSource

log = logging.getLogger(__name__)

DEBOUNCE_SECONDS = 0.2
"""From the first change to the report of all that changed since: nodes that start together are seen together."""
MAX_HINTS = 256


class Watcher:
    """What all sources know, as one set. Where they disagree, or there is too much, the earlier source counts.

    So the operator's seeds come first and what strangers shout on the network comes last.
    """

    def __init__(self, sources: Sequence[PeerSource], *, debounce: float = DEBOUNCE_SECONDS) -> None:
        self._sources = tuple(sources)
        self._debounce = debounce
        # Offered addresses come from authenticated peers: after the first source, before the others.
        self._order = [source.name for source in sources]
        self._found: dict[str, frozenset[Hint]] = {}
        self._hints: frozenset[Hint] = frozenset()
        self._dirty = asyncio.Event()
        self._full = False
        self._error: DiscoveryError | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._started: list[PeerSource] = []

    @property
    def hints(self) -> frozenset[Hint]:
        """All places to dial that are known now; at most 256. Raises DuplicateIdentity once a source finds that
        this node runs twice."""
        if self._error is not None:
            raise self._error
        return self._hints

    async def start(self) -> None:
        """Start every source, in the background: hints come in as they are found."""
        self._tasks = [
            tasks.start(self._run(), "discovery.watcher"),
            tasks.start(self._start_sources(), "discovery.watcher.start"),
        ]

    async def stop(self) -> None:
        """Stop the sources in reverse order."""
        await tasks.stop(self._tasks)
        self._tasks = []
        while self._started:
            await self._started.pop().stop()

    def offer(self, source: str, hints: frozenset[Hint]) -> None:
        """All that `source` knows now, instead of what it knew: called by sources, and by whoever else learns
        addresses (known peers spread over mutual TLS)."""
        if source not in self._order:
            self._order.insert(1, source)
        if self._found.get(source) != hints:
            self._found[source] = hints
            self._dirty.set()

    async def _start_sources(self) -> None:
        for source in self._sources:
            self._started.append(source)
            try:
                await source.start(self.offer)
            except DiscoveryError as error:
                self._error = error

    async def _run(self) -> None:
        while True:
            await self._dirty.wait()
            # Not restarted by further changes: a source that never rests does not hold back the report.
            await asyncio.sleep(self._debounce)
            self._dirty.clear()
            self._hints = self._merge()

    def _merge(self) -> frozenset[Hint]:
        places: dict[tuple[str, int], Hint] = {}
        for source in self._order:
            for hint in sorted(self._found.get(source, ())):
                if len(places) < MAX_HINTS:
                    places.setdefault((hint.address, hint.peer_port), hint)
        known = sum(map(len, self._found.values()))
        if (full := len(places) == MAX_HINTS < known) != self._full:
            self._full = full
            if full:
                log.warning("hints.capped", extra={"parvada_keys": {"kept": MAX_HINTS, "known": known}})
        return frozenset(places.values())
