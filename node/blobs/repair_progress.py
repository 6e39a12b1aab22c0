"""Tells how far a repair has come: what this node lacked in all, what has come since, how much is left."""

from collections.abc import Callable, Mapping

from consensus.state import Digest
from node import logs

log = logs.get("node.blobs.repair")

SAY_SECONDS = 5.0


class RepairProgress:
    """Fed with what is owed at each round; says so when it begins, every few seconds, and when nothing is left."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: set[Digest] = set()
        self._said_at = 0.0

    def note(self, owed: Mapping[Digest, int]) -> None:
        """`owed`: bytes of each blob that should be here and is not."""
        if not owed and not self._seen:
            return
        began, now = not self._seen, self._clock()
        self._seen |= set(owed)
        if began or not owed or now - self._said_at >= SAY_SECONDS:
            self._said_at = now
            done = len(self._seen) - len(owed)
            log.info("repair.progress", done=done, of=len(self._seen), bytes_left=sum(owed.values()))
        if not owed:
            self._seen.clear()
