"""Live curves: what runs now, of one epoch, in bounded memory and in small answers."""

import math

import msgspec
import pytest

from node.telemetry.live import KEPT_SECONDS, MAX_ANSWER_POINTS, MAX_FITS, MAX_POINTS, MAX_SERIES, LiveFits
from parvada.schema import LiveFit, LiveJob
from training.ports import CurvePoint, FitNews, LiveReport


def points(first: int, last: int, metric: str = "loss") -> tuple[CurvePoint, ...]:
    return tuple(CurvePoint(n, "validation", metric, 1 / n, 0.5 * n) for n in range(first, last + 1))


def news(*told: CurvePoint, job: str = "j", candidate: str = "0.0", fold: int = 0) -> FitNews:
    return FitNews(job, candidate, fold, told)


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def live(time: Time) -> LiveFits:
    return LiveFits(time)


def shown(live: LiveFits, job: str = "j") -> list[LiveFit]:
    return msgspec.json.decode(live.read(job), type=LiveJob).fits


def test_points_are_gathered_over_reports_and_by_series(live: LiveFits) -> None:
    live.accept(LiveReport(1, (news(*points(1, 2)), news(*points(1, 1), fold=-1), news(*points(1, 1), job="k"))))
    live.accept(LiveReport(1, (news(*points(3, 3), *points(1, 1, "f1")), news(fold=-1), news(job="k"))))
    refit, fold = shown(live)
    assert (refit.candidate, refit.fold, refit.series[0].iteration) == ("0.0", None, [1])
    assert fold.fold == 0
    f1, loss = fold.series
    assert (f1.metric, f1.split, f1.iteration) == ("f1", "validation", [1])
    assert (loss.iteration, loss.value, loss.seconds) == ([1, 2, 3], [1.0, 0.5, pytest.approx(1 / 3)], [0.5, 1.0, 1.5])
    assert shown(live, "other") == []


def test_a_fit_that_is_not_told_of_has_ended(live: LiveFits) -> None:
    live.accept(LiveReport(1, (news(*points(1, 1)), news(*points(1, 1), fold=1))))
    live.accept(LiveReport(1, (news(fold=1),)))
    assert [fit.fold for fit in shown(live)] == [1]
    live.accept(LiveReport(1, ()))
    assert shown(live) == []


def test_another_epoch_begins_anew_and_an_old_one_says_nothing(live: LiveFits) -> None:
    live.accept(LiveReport(1, (news(*points(1, 5)),)))
    live.accept(LiveReport(2, (news(*points(9, 9)),)))
    live.accept(LiveReport(1, (news(*points(6, 6)),)))
    assert [fit.series[0].iteration for fit in shown(live)] == [[9]]


def test_a_trainer_that_is_silent_is_gone(live: LiveFits, time: Time) -> None:
    live.accept(LiveReport(1, (news(*points(1, 5)),)))
    time.now += KEPT_SECONDS
    assert shown(live)
    time.now += 0.1
    assert shown(live) == []


def test_a_fit_that_starts_again_goes_over_its_points_anew(live: LiveFits) -> None:
    live.accept(LiveReport(1, (news(*points(1, 10)),)))
    live.accept(LiveReport(1, (news(CurvePoint(7, "validation", "loss", 7.0, 0.1)),)))
    (series,) = shown(live)[0].series
    assert series.iteration == [1, 2, 3, 4, 5, 6, 7]
    assert series.value[-1] == 7.0


def test_what_no_json_has_is_null(live: LiveFits) -> None:
    live.accept(LiveReport(1, (news(CurvePoint(1, "train", "loss", math.inf, 0.1)),)))
    assert shown(live)[0].series[0].value == [None]


def test_nothing_grows_without_bound(live: LiveFits) -> None:
    for first in range(1, 100_001, 1000):
        told = [*points(first, first + 999), *(p for m in range(20) for p in points(first, first, f"m{m}"))]
        live.accept(LiveReport(1, tuple(news(*told, candidate=f"0.{n}") for n in range(2))))
    assert [len(fit.series) for fit in shown(live)] == [MAX_SERIES] * 2
    loss = next(s for s in shown(live)[0].series if s.metric == "loss")
    assert MAX_POINTS / 2 <= len(loss.iteration) <= MAX_POINTS
    assert (loss.iteration[-1], loss.iteration) == (100_000, sorted(loss.iteration))

    every = [p for m in range(20) for p in points(1, MAX_POINTS, f"m{m}")]
    live.accept(LiveReport(1, tuple(news(*every, job="k", fold=n) for n in range(300))))
    answer = shown(live, "k")
    assert len(answer) == MAX_FITS
    series = [s for fit in answer for s in fit.series]
    assert sum(len(s.iteration) for s in series) <= MAX_ANSWER_POINTS
    assert {s.iteration[-1] for s in series} == {MAX_POINTS}, "the latest point is always shown"
    assert len(live.read("k")) < 1024 * 1024, "what a small call between nodes may carry"
