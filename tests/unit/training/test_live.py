"""From the trainer to its agent: all that runs in one report, bounded, at an even pace."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from consensus.state import CandidateId, JobId
from parvada.local import StoredBlob
from tests.support.clock import Clock
from training.live import KEEP_SECONDS, MAX_FITS, MAX_POINTS, PAUSE_SECONDS, LiveFeed
from training.plan import Work
from training.ports import Checkpoint, CurvePoint, LiveReport


def point(iteration: int) -> CurvePoint:
    return CurvePoint(iteration, "train", "loss", 0.5, 0.1)


def work(fold: int) -> Work:
    return Work(JobId("j"), CandidateId("0.1"), fold)


class World:
    def __init__(self) -> None:
        self.reports: list[LiveReport] = []
        self.feed = LiveFeed(7)

    async def send(self, report: LiveReport) -> None:
        self.reports.append(report)

    def told(self) -> list[list[tuple[int, list[int]]]]:
        """Of each report: the folds, with the iterations of their points."""
        return [[(fit.fold, [p.iteration for p in fit.points]) for fit in report.fits] for report in self.reports]


@pytest.fixture
async def world(clock: Clock) -> AsyncIterator[World]:
    clock.hold()
    made = World()
    running = asyncio.create_task(made.feed.run(made.send))
    yield made
    running.cancel()
    await asyncio.wait([running])


async def test_what_is_told_within_a_pause_travels_together(world: World, clock: Clock) -> None:
    world.feed.of(work(0))(point(1))
    await clock.settle()
    assert world.told() == [[(0, [1])]]
    world.feed.of(work(0))(point(2))
    world.feed.of(work(1))(point(1))
    world.feed.of(work(0))(point(3))
    await clock.settle()
    assert len(world.reports) == 1
    await clock.advance(PAUSE_SECONDS)
    assert world.told()[1:] == [[(0, [2, 3]), (1, [1])]]
    assert {report.epoch for report in world.reports} == {7}


async def test_an_agent_hears_that_a_silent_fit_still_runs_and_when_it_has_ended(world: World, clock: Clock) -> None:
    await clock.advance(100 * KEEP_SECONDS)
    assert world.reports == [], "nothing runs that tells anything"
    world.feed.of(work(0))(point(1))
    await clock.advance(2.5 * (KEEP_SECONDS + PAUSE_SECONDS))
    assert world.told() == [[(0, [1])], [(0, [])], [(0, [])]]
    world.feed.ended(work(0))
    await clock.advance(PAUSE_SECONDS)
    assert world.told()[3:] == [[]]
    await clock.advance(100 * KEEP_SECONDS)
    assert len(world.reports) == 4


async def test_a_report_is_bounded(world: World, clock: Clock) -> None:
    for number in range(MAX_FITS + 10):
        for iteration in range(1, 3 * MAX_POINTS):
            world.feed.of(work(number))(point(iteration))
    await clock.settle()
    (report,) = world.reports
    assert len(report.fits) == MAX_FITS
    assert {len(fit.points) for fit in report.fits} == {MAX_POINTS}
    assert report.fits[0].points[-1].iteration == 3 * MAX_POINTS - 1


async def test_a_checkpoint_is_no_curve(world: World, clock: Clock) -> None:
    world.feed.of(work(0))(Checkpoint(1, StoredBlob("a" * 64, 10, ("n",))))
    world.feed.ended(work(0))
    await clock.advance(KEEP_SECONDS)
    assert world.reports == []
