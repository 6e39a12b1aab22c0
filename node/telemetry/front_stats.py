"""The prediction counts of this node: what its fronts report, living and dead ones together."""

from collections.abc import Callable, Iterable

from serving.stats import ModelStats, StatsReply, StatsReport, merge

SILENT_SECONDS = 5.0
"""A front that has not reported for so long is gone: its counts stay, its rate does not."""


class FrontStats:
    """Newest report of each front, and the sum of those that are gone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._fronts: dict[int, tuple[float, StatsReport]] = {}
        self._gone: tuple[ModelStats, ...] = ()

    def accept(self, report: StatsReport) -> StatsReply:
        """Note a report; the answer is everything that the others of this node have counted."""
        known = self._fronts.get(report.pid)
        if known is not None and total(report.models) < total(known[1].models):
            self._retire([report.pid])  # another process under the same pid
        self._fronts[report.pid] = (self._clock(), report)
        others = [row for pid, (_, other) in self._fronts.items() if pid != report.pid for row in other.models]
        return StatsReply(merge([*self._gone, *others]))

    def rows(self) -> tuple[ModelStats, ...]:
        """The whole node, by model version."""
        now = self._clock()
        self._retire([pid for pid, (at, _) in self._fronts.items() if now - at > SILENT_SECONDS])
        return merge([*self._gone, *(row for _, report in self._fronts.values() for row in report.models)])

    def _retire(self, pids: Iterable[int]) -> None:
        ended = [row.idle() for pid in pids for row in self._fronts.pop(pid)[1].models]
        if ended:
            self._gone = merge([*self._gone, *ended])


def total(rows: Iterable[ModelStats]) -> int:
    return sum(row.requests for row in rows)
