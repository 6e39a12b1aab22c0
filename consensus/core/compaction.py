"""Keeps the log short: makes a snapshot in the background when the log has grown, then drops what it covers."""

import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from consensus.core.journal import Journal, JournalWriteFailed
from consensus.core.snapshot import Background, Pending, Snapshot, SnapshotStore, encode_snapshot

log = logging.getLogger(__name__)


class CompactionRule(msgspec.Struct, frozen=True):
    """When to make a snapshot, and what to leave behind it."""

    entries: int = 20_000
    """Applied entries since the last snapshot: bounds the time of a restart."""
    journal_bytes: int = 16 * 1024 * 1024
    """Growth of the journal since it was last rewritten: bounds disk and memory."""
    trailing_entries: int = 1_000
    """Entries kept although a snapshot covers them, so that a peer just behind needs no snapshot."""
    trailing_bytes: int = 4 * 1024 * 1024
    retry_seconds: float = 10.0
    """Pause after a failure, such as a full disk."""


class StateMachine(Protocol):
    """What the log drives. `apply` is total: an exception stops the node."""

    def apply(self, index: int, command: bytes) -> None:
        """Apply the command of entry `index`."""
        ...

    def freeze(self) -> Callable[[], bytes]:
        """A function that encodes the present state, to be called once, in another thread."""
        ...

    def decode(self, state: bytes) -> Callable[[int], None]:
        """A function that puts the decoded state, that of the given index, in force. Raises Corrupt."""
        ...


class Compactor:
    """One snapshot at a time. Called once per turn of the log's loop."""

    def __init__(
        self,
        journal: Journal,
        store: SnapshotStore,
        machine: StateMachine,
        rule: CompactionRule,
        background: Background,
    ) -> None:
        self._journal, self._store, self._machine = journal, store, machine
        self._rule, self._background = rule, background
        self._running: Pending | None = None
        self._making = 0
        self._size_after = journal.size
        self._not_before = 0.0
        self.snapshot_index = 0
        """Index of the newest durable snapshot, 0 for none."""

    def turn(self, now: float, applied: int, term: int, voters: tuple[str, ...]) -> None:
        """Start a snapshot of `applied` if one is due; put a finished one in place."""
        if self._running is not None:
            if self._running.done():
                self._finish(self._running, now)
        elif now >= self._not_before and self._due(applied):
            self._making = applied
            self._running = self._background(self._make(applied, term, voters))

    def _due(self, applied: int) -> bool:
        grown = self._journal.size - self._size_after
        return applied > self.snapshot_index and (
            applied - max(self.snapshot_index, 1) >= self._rule.entries or grown >= self._rule.journal_bytes
        )

    def _make(self, index: int, term: int, voters: tuple[str, ...]) -> Callable[[], bytes]:
        encode_state, store = self._machine.freeze(), self._store

        def make() -> bytes:
            raw = encode_snapshot(Snapshot(index, term, voters, encode_state()))
            store.prepare(raw)
            return raw

        return make

    def _finish(self, run: Pending, now: float) -> None:
        self._running = None
        try:
            run.result()
            if self._making <= self.snapshot_index:
                # A newer one arrived from the leader meanwhile: to put this one in place would leave a hole.
                self._store.discard_made()
                return
            self._store.commit_made()
            self.snapshot_index = self._making
            self._journal.compact(self._keep_from(self._making))
            self._size_after = self._journal.size
        except (OSError, JournalWriteFailed) as error:
            # Nothing is lost: the log stays as it is, and the next attempt covers more.
            self._not_before = now + self._rule.retry_seconds
            log.warning("snapshot.failed index=%d error=%s", self._making, error)

    def _keep_from(self, index: int) -> int:
        """The first index to keep: `index` itself is the last that may go on being the log's first entry."""
        first = self._journal[0][1]
        size, keep = 0, index
        while keep > max(first, index - self._rule.trailing_entries):
            size += len(self._journal[keep - 1 - first][0])
            if size > self._rule.trailing_bytes:
                break
            keep -= 1
        return keep

    def installed(self, index: int) -> None:
        """A snapshot was received, or loaded at the start."""
        self.snapshot_index = index
        self._size_after = self._journal.size
