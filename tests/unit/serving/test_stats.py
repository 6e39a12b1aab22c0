"""Histograms lose nothing when merged and stay close to the truth; counts and rates are what happened."""

import msgspec
from hypothesis import given, strategies as st

from serving.stats import ModelStats, RequestCounter, StatsReport, Timings, bucket, merge, middle, quantile, to_loads

latencies = st.lists(st.integers(0, 10**9), min_size=1, max_size=200)


def histogram_of(values: list[int]) -> dict[int, int]:
    histogram: dict[int, int] = {}
    for value in values:
        histogram[bucket(value)] = histogram.get(bucket(value), 0) + 1
    return histogram


@given(st.integers(0, 10**10))
def test_a_bucket_stands_for_its_values_within_two_percent(value: int) -> None:
    assert abs(middle(bucket(value)) - value) <= max(0.5, value / 64)
    assert bucket(value) <= bucket(value + 1)


@given(latencies, st.floats(0.01, 1))
def test_a_quantile_is_within_two_percent_of_the_true_one(values: list[int], q: float) -> None:
    rank = next(n for n in range(1, len(values) + 1) if n >= q * len(values))
    true = sorted(values)[rank - 1]
    assert abs(quantile(histogram_of(values), q) - true) <= max(0.5, true / 64)


@given(latencies, latencies)
def test_merged_is_the_histogram_of_all(first: list[int], second: list[int]) -> None:
    parts = [ModelStats("m", 1, requests=len(v), histogram=histogram_of(v)) for v in (first, second)]
    (total,) = merge(parts)
    assert total.histogram == histogram_of(first + second)
    assert total.requests == len(first) + len(second)


def test_recorder_counts_and_the_rate_covers_ten_seconds() -> None:
    now = [1000.0]
    counter = RequestCounter(clock=lambda: now[0], wall=lambda: 5.0)
    for second in range(20):
        now[0] = 1000.0 + second
        for _ in range(3):
            counter.answered("m", 1, rows=2, total_ns=4_000_000, timings=Timings(infer=3_000_000))
    counter.failed("m", 1, 1_000)
    now[0] = 1020.0
    (row,) = counter.rows()
    assert (row.requests, row.errors, row.rows, row.last_ms) == (61, 1, 120, 5000)
    assert row.rate == 3.1
    (load,) = to_loads([row, row])
    assert load.requests == 122
    assert abs(load.p50 - 4.0) < 0.1
    assert load.max == 4.0
    now[0] = 1040.0
    assert counter.rows()[0].rate == 0.0


def test_report_survives_the_wire() -> None:
    counter = RequestCounter()
    counter.answered("m", 2, 1, 123_456, Timings(1, 2, 3, 4))
    report = StatsReport(7, counter.rows())
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(report), type=StatsReport) == report
