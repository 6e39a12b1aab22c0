"""What a fit tells before it ends, on its way out of the worker: never waited for by the fit, and bounded whatever it
tells."""

import threading
import time
from collections.abc import Callable, Iterator

from training.ports import Checkpoint, CurvePoint, Word

PAUSE_SECONDS = 0.05
"""Between two batches."""
MAX_PENDING = 64
"""Of one batch; beyond, those of the series that have been quiet for longest go."""


class Outbox:
    """One thread puts, another takes. What has not been taken is replaced by the next of its series: a curve that grows
    faster than 20 points a second is thinned out, its latest point always arrives."""

    def __init__(self, pause: float = PAUSE_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._pause, self._clock = pause, clock
        self._pending: dict[tuple[str, ...], Word] = {}
        self._changed = threading.Condition()
        self._closed = False

    def put(self, word: Word) -> None:
        """Costs a microsecond or two, however often and however slow the other side."""
        series = _series(word)
        with self._changed:
            self._pending.pop(series, None)  # so that the order stays that of the latest ones
            self._pending[series] = word
            if len(self._pending) == 1:
                self._changed.notify()
            elif len(self._pending) > MAX_PENDING:
                del self._pending[next(iter(self._pending))]

    def close(self) -> None:
        """Nothing more comes: `batches` ends with what there is."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def batches(self) -> Iterator[tuple[Word, ...]]:
        """Waits for messages, but never long for the last ones."""
        while batch := self._take():
            yield batch
            self._rest(self._clock() + self._pause)

    def _take(self) -> tuple[Word, ...]:
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._closed)
            batch = tuple(self._pending.values())
            self._pending.clear()
            return batch

    def _rest(self, until: float) -> None:
        with self._changed:
            while not self._closed and (left := until - self._clock()) > 0:
                self._changed.wait(left)


def _series(word: Word) -> tuple[str, ...]:
    if isinstance(word, CurvePoint):
        return ("curve", word.split, word.metric)
    return ("checkpoint",) if isinstance(word, Checkpoint) else ("time",)
