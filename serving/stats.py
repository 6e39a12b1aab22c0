"""Latency histograms with logarithmic buckets that merge without loss, and the counts of each model version."""

import time
from collections.abc import Callable, Iterable

import msgspec

from parvada import schema

WINDOW_SECONDS = 10
_SUB_BITS = 5
"""32 buckets in each doubling of the latency: a quantile is off by at most 1/64 of its value."""
_MAX_MICROSECONDS = (1 << 36) - 1

Histogram = dict[int, int]
"""Bucket number to count, sparse. Two are merged by adding counts."""


def bucket(microseconds: int) -> int:
    """The bucket of a latency: exact below 64 µs, then 32 buckets in each doubling."""
    value = min(max(microseconds, 0), _MAX_MICROSECONDS)
    exponent = max(value.bit_length() - _SUB_BITS - 1, 0)
    return (exponent << _SUB_BITS) + (value >> exponent)


def middle(number: int) -> float:
    """The middle of a bucket, in microseconds."""
    exponent = max((number >> _SUB_BITS) - 1, 0)
    return float(((number - (exponent << _SUB_BITS)) << exponent) + ((1 << exponent) - 1) / 2)


def quantile(histogram: Histogram, q: float) -> float:
    """The latency in microseconds below which the share `q` (0 to 1) of requests stayed; 0 if there were none."""
    wanted = q * sum(histogram.values())
    seen = 0
    for number in sorted(histogram):
        seen += histogram[number]
        if seen >= wanted:
            return middle(number)
    return 0.0


class Timings(msgspec.Struct, frozen=True):
    """Nanoseconds spent in the stages of one request, or summed over many."""

    queue: int = 0
    input: int = 0
    infer: int = 0
    output: int = 0

    def plus(self, other: "Timings") -> "Timings":
        return Timings(
            self.queue + other.queue, self.input + other.input, self.infer + other.infer, self.output + other.output
        )


class ModelStats(msgspec.Struct, frozen=True):
    """One model version: counts since the front started, rate in requests per second over the last 10 s."""

    model: str
    version: int
    requests: int = 0
    """Answered and failed ones."""
    errors: int = 0
    rows: int = 0
    """Rows of the requests that were answered."""
    rate: float = 0.0
    max_microseconds: int = 0
    last_ms: int = 0
    """Unix time of the last answer in milliseconds."""
    fail_ns: int = 0
    timings: Timings = Timings()
    """Sums over the answered requests."""
    histogram: Histogram = {}
    """Of the answered requests, from the last byte of the request to the answer's first."""

    def plus(self, other: "ModelStats") -> "ModelStats":
        histogram = dict(self.histogram)
        for number, count in other.histogram.items():
            histogram[number] = histogram.get(number, 0) + count
        return ModelStats(
            model=self.model,
            version=self.version,
            requests=self.requests + other.requests,
            errors=self.errors + other.errors,
            rows=self.rows + other.rows,
            rate=self.rate + other.rate,
            max_microseconds=max(self.max_microseconds, other.max_microseconds),
            last_ms=max(self.last_ms, other.last_ms),
            fail_ns=self.fail_ns + other.fail_ns,
            timings=self.timings.plus(other.timings),
            histogram=histogram,
        )

    def idle(self) -> "ModelStats":
        """The same with a rate of 0: for the last report of a front that has ended, whose counts stay."""
        return msgspec.structs.replace(self, rate=0.0)

    def load(self) -> schema.ModelLoad:
        """As the API shows it: latencies in milliseconds."""
        longest = self.max_microseconds / 1000

        def at(q: float) -> float:
            return min(round(quantile(self.histogram, q) / 1000, 3), longest)

        return schema.ModelLoad(
            model=self.model,
            version=self.version,
            requests=self.requests,
            errors=self.errors,
            rows=self.rows,
            rate=round(self.rate, 3),
            p50=at(0.5),
            p90=at(0.9),
            p95=at(0.95),
            p99=at(0.99),
            max=longest,
        )


class StatsReport(msgspec.Struct, frozen=True):
    """What a front posts to its agent each second (msgpack): its counts since it started."""

    pid: int
    models: tuple[ModelStats, ...]


class StatsReply(msgspec.Struct, frozen=True):
    """The agent's answer to a report: the merged counts of the node's *other* fronts, dead ones included, so
    that whichever front a client meets shows the figures of the node. An empty body means none."""

    others: tuple[ModelStats, ...] = ()


def merge(parts: Iterable[ModelStats]) -> tuple[ModelStats, ...]:
    """Sum by model version, sorted by name and version."""
    total: dict[tuple[str, int], ModelStats] = {}
    for part in parts:
        key = (part.model, part.version)
        total[key] = total[key].plus(part) if key in total else part
    return tuple(total[key] for key in sorted(total))


def to_loads(parts: Iterable[ModelStats]) -> list[schema.ModelLoad]:
    """Any number of reports' rows merged, as `schema.Stats.models` shows them."""
    return [row.load() for row in merge(parts)]


class _Counter:
    """The running counts of one model version in this process."""

    def __init__(self, model: str, version: int) -> None:
        self.stats = ModelStats(model, version)
        self.histogram: Histogram = {}
        self.seconds: dict[int, int] = {}

    def tick(self, second: int) -> None:
        self.seconds[second] = self.seconds.get(second, 0) + 1
        if len(self.seconds) > WINDOW_SECONDS + 1:
            self.seconds = {s: n for s, n in self.seconds.items() if s > second - WINDOW_SECONDS}

    def rate(self, second: int) -> float:
        """Over the ten whole seconds before the present one, which is still filling."""
        return sum(n for s, n in self.seconds.items() if second - WINDOW_SECONDS <= s < second) / WINDOW_SECONDS


class RequestCounter:
    """Counts requests of this front. For one thread: the event loop's."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._wall = wall
        self._counters: dict[tuple[str, int], _Counter] = {}

    def _counter(self, model: str, version: int) -> _Counter:
        found = self._counters.get((model, version))
        if found is None:
            found = self._counters[(model, version)] = _Counter(model, version)
        return found

    def answered(self, model: str, version: int, rows: int, total_ns: int, timings: Timings) -> None:
        counter = self._counter(model, version)
        microseconds = total_ns // 1000
        number = bucket(microseconds)
        counter.histogram[number] = counter.histogram.get(number, 0) + 1
        counter.tick(int(self._clock()))
        old = counter.stats
        counter.stats = msgspec.structs.replace(
            old,
            requests=old.requests + 1,
            rows=old.rows + rows,
            max_microseconds=max(old.max_microseconds, microseconds),
            last_ms=int(self._wall() * 1000),
            timings=old.timings.plus(timings),
        )

    def failed(self, model: str, version: int, total_ns: int) -> None:
        counter = self._counter(model, version)
        counter.tick(int(self._clock()))
        old = counter.stats
        counter.stats = msgspec.structs.replace(
            old, requests=old.requests + 1, errors=old.errors + 1, fail_ns=old.fail_ns + total_ns
        )

    def rows(self) -> tuple[ModelStats, ...]:
        """A consistent copy of all counts."""
        second = int(self._clock())
        return tuple(
            msgspec.structs.replace(c.stats, rate=c.rate(second), histogram=dict(c.histogram))
            for c in self._counters.values()
        )
