"""The curves of fits that run now, as the trainer of this node tells them: the latest, thinned out, in bounded memory.

They are never in the log. Only the node that holds the epoch has any; others ask it.
"""

import time
from array import array
from collections.abc import Callable, Iterator

import msgspec
from aiohttp import web

from parvada.schema import LiveFit, LiveJob, LiveSeries
from training.ports import CurvePoint, LiveReport

PEER_PATH = "/peer/live/"
KEPT_SECONDS = 15.0
"""A trainer that says nothing for so long is gone, and so are its fits."""
MAX_FITS, MAX_SERIES, MAX_POINTS = 256, 8, 128
"""Of a node, of a fit, of a series: 6 MB at the most. A series that grows beyond loses every second point."""
MAX_ANSWER_POINTS = 8192
"""Of all series of a job in one answer: some 300 KB."""


class LiveFits:
    """`accept` takes the reports of this node's trainer, `read` answers for a job; `routes` go to the peer port."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epoch = 0
        self._heard = 0.0
        self._fits: dict[tuple[str, str, int], _Fit] = {}

    def routes(self) -> list[web.RouteDef]:
        return [web.get(PEER_PATH + "{job}", self._serve)]

    def accept(self, report: LiveReport) -> None:
        """A report names every fit that runs and tells anything; others have ended."""
        if report.epoch < self._epoch:
            return
        before = self._fits if report.epoch == self._epoch else {}
        self._epoch, self._heard = report.epoch, self._clock()
        self._fits = {}
        for news in report.fits[:MAX_FITS]:
            key = (news.job, news.candidate, news.fold)
            fit = self._fits[key] = before.get(key) or _Fit()
            for point in news.points:
                fit.add(point)

    def read(self, job: str) -> bytes:
        """A `schema.LiveJob` as JSON, within MAX_ANSWER_POINTS."""
        if self._clock() - self._heard > KEPT_SECONDS:
            self._fits = {}
        found = {key: fit for key, fit in self._fits.items() if key[0] == job}
        most = max(1, MAX_ANSWER_POINTS // max(1, sum(len(fit.series) for fit in found.values())))
        fits = [
            LiveFit(candidate=candidate, fold=fold if fold >= 0 else None, series=list(fit.shown(most)))
            for (_, candidate, fold), fit in sorted(found.items())
        ]
        return msgspec.json.encode(LiveJob(job=job, epoch=self._epoch, fits=fits))

    async def _serve(self, request: web.Request) -> web.Response:
        return web.Response(body=self.read(request.match_info["job"]), content_type="application/json")


class _Fit:
    def __init__(self) -> None:
        self.series: dict[tuple[str, str], _Series] = {}

    def add(self, point: CurvePoint) -> None:
        key = (point.split, point.metric)
        if key in self.series or len(self.series) < MAX_SERIES:
            self.series.setdefault(key, _Series()).add(point)

    def shown(self, most: int) -> Iterator[LiveSeries]:
        for (split, metric), series in sorted(self.series.items()):
            iteration, value, seconds = series.thinned(most)
            yield LiveSeries(split=split, metric=metric, iteration=iteration, value=value, seconds=seconds)


class _Series:
    def __init__(self) -> None:
        self._iterations, self._values, self._seconds = array("q"), array("d"), array("d")

    def add(self, point: CurvePoint) -> None:
        # A fit that was started again, or went on from a checkpoint, goes over its last points anew.
        while self._iterations and self._iterations[-1] >= point.iteration:
            for column in (self._iterations, self._values, self._seconds):
                column.pop()
        if len(self._iterations) >= MAX_POINTS:
            self._iterations, self._values, self._seconds = (
                self._iterations[1::2],
                self._values[1::2],
                self._seconds[1::2],
            )
        self._iterations.append(point.iteration)
        self._values.append(point.value)
        self._seconds.append(point.seconds)

    def thinned(self, most: int) -> tuple[list[int], list[float | None], list[float]]:
        """At most so many points, evenly, and the latest among them."""
        every = -(-len(self._iterations) // most)
        kept = slice((len(self._iterations) - 1) % every, None, every)
        return list(self._iterations[kept]), list(self._values[kept]), list(self._seconds[kept])
