"""One turn of the log: tick, send what is new, make the journal durable, and only then let the messages go.

The order is the safety argument: nothing that a peer or a client sees can be lost by a crash, and one fdatasync
serves everything that happened since the turn before.
"""

import logging
from typing import Protocol

from consensus.core.base import now
from consensus.core.hardened import HardenedRaft
from consensus.core.journal import Journal, JournalWriteFailed

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.5
"""Pause between attempts to write on a disk that refused."""


class Outbox(Protocol):
    """Messages that wait for the end of the turn."""

    def flush(self) -> None: ...

    def drop(self) -> None:
        """Forget the messages: what they say is not durable."""
        ...


class Pump:
    """Drives one core. Messages were handed to the core before `turn`."""

    def __init__(self, core: HardenedRaft, journal: Journal, outbox: Outbox) -> None:
        self._core, self._journal, self._outbox = core, journal, outbox
        self._retry_at = 0.0

    def turn(self) -> None:
        """One round; a sole voter goes on until all it may commit is committed."""
        self._round()
        while self._core.commits_alone:
            self._round()

    @property
    def next_deadline(self) -> float:
        """When the next turn is due if nothing happens before, on the library's clock."""
        return self._retry_at if self._core.read_only else self._core.next_deadline

    def _round(self) -> None:
        core = self._core
        if core.read_only and now() >= self._retry_at:
            self._retry()
        core.tick()
        core.send_new()
        if not core.read_only:
            self._sync()
        self._outbox.flush()

    def _sync(self) -> None:
        try:
            self._journal.sync()
        except JournalWriteFailed as error:
            log.critical("log.read_only error=%s permanent=%s", error, error.permanent)
            self._retry_at = now() + RETRY_SECONDS
            self._outbox.drop()
            self._core.refuse_writes(str(error))

    def _retry(self) -> None:
        try:
            self._journal.sync()
        except JournalWriteFailed as error:
            self._retry_at = now() + RETRY_SECONDS
            log.debug("log.still_read_only error=%s", error)
        else:
            log.warning("log.writable")
            self._core.accept_writes()
