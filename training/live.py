"""What running fits tell, on its way from the trainer to the agent of its node: gathered, bounded, never in the log."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from training.plan import Work
from training.ports import CurvePoint, FitNews, Hear, LiveReport, Message

PAUSE_SECONDS = 0.5
"""Between two reports, while there is news."""
KEEP_SECONDS = 5.0
"""Between two reports without news: an agent forgets what it has not heard of for three times as long."""
MAX_FITS = 256
MAX_POINTS = 64
"""Of a fit and a report; the latest are kept."""


class LiveFeed:
    """Of one epoch. What a report loses is lost; the next one says what still runs."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch
        self._fits: dict[Work, deque[CurvePoint]] = {}
        self._changed = asyncio.Event()

    def of(self, work: Work) -> Hear:
        """What the messages of a work item are given to."""

        def take(message: Message) -> None:
            if isinstance(message, CurvePoint) and (work in self._fits or len(self._fits) < MAX_FITS):
                self._fits.setdefault(work, deque(maxlen=MAX_POINTS)).append(message)
                self._changed.set()

        return take

    def ended(self, work: Work) -> None:
        if self._fits.pop(work, None) is not None:
            self._changed.set()

    async def run(self, send: Callable[[LiveReport], Awaitable[None]]) -> None:
        """Report to the agent until cancelled."""
        while True:
            try:
                async with asyncio.timeout(KEEP_SECONDS if self._fits else None):
                    await self._changed.wait()
            except TimeoutError:
                pass  # no news: say what still runs
            self._changed.clear()
            await send(self._report())
            await asyncio.sleep(PAUSE_SECONDS)

    def _report(self) -> LiveReport:
        news = []
        for work, points in self._fits.items():
            news.append(FitNews(work.job, work.candidate, work.fold, tuple(points)))
            points.clear()
        return LiveReport(self._epoch, tuple(news))
