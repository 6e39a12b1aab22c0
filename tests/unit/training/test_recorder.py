"""The recorder: nothing is confirmed before it is committed, and what ends together is one command."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consensus.messages import Command, FoldDone, FoldFailed, RecordFolds, Rejected
from consensus.ports import CommandRejected
from consensus.state import CandidateId, JobId, Json
from tests.support.clock import Clock
from training import recorder as recorder_module
from training.errors import EpochLost
from training.recorder import BATCH_RESULTS, BATCH_SECONDS, Recorder, Result
from training.trainer import Trainer

ONE, TWO = JobId("one"), JobId("two")


def good(fold: int, candidate: str = "0.1") -> FoldDone:
    return FoldDone(CandidateId(candidate), fold, Json(b'{"r2":0.5}'), 0.1, 1.0)


def bad(fold: int, candidate: str = "0.1") -> FoldFailed:
    return FoldFailed(CandidateId(candidate), fold, "ValueError: no")


class Log:
    """Takes the commands of a recorder of epoch 7; while it is not `open` they are under way."""

    def __init__(self) -> None:
        self.commands: list[RecordFolds] = []
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        self.recorder = Recorder(7, self._commit)
        self.running = asyncio.create_task(self.recorder.run())

    async def _commit(self, command: RecordFolds) -> None:
        self.commands.append(command)
        await self.open.wait()
        if self.error is not None:
            raise self.error

    def record(self, job: JobId, *results: Result) -> list["asyncio.Task[None]"]:
        return [asyncio.create_task(self.recorder.record(job, result)) for result in results]


@asynccontextmanager
async def running(clock: Clock) -> AsyncIterator[Log]:
    clock.hold()
    log = Log()
    try:
        yield log
    finally:
        log.running.cancel()
        await asyncio.wait([log.running])


async def test_results_of_the_same_moment_are_one_command_of_the_epoch(clock: Clock) -> None:
    async with running(clock) as log:
        waiting = log.record(ONE, good(0), bad(0, "0.2"), good(2), good(1, "0.2"), bad(4))
        await clock.advance(BATCH_SECONDS / 2)
        waiting += log.record(ONE, good(3))
        assert log.commands == [], "others may end in this moment"
        await clock.advance(BATCH_SECONDS / 2)
        done, failed = (good(0), good(2), good(1, "0.2"), good(3)), (bad(0, "0.2"), bad(4))
        assert log.commands == [RecordFolds(7, ONE, done, failed)]
        assert all(task.done() for task in waiting)


async def test_each_job_has_a_command_of_its_own_in_the_order_of_their_first_results(clock: Clock) -> None:
    async with running(clock) as log:
        log.record(TWO, good(0))
        log.record(ONE, good(0), good(1))
        log.record(TWO, bad(1))
        await clock.advance(BATCH_SECONDS)
        assert log.commands == [
            RecordFolds(7, TWO, (good(0),), (bad(1),)),
            RecordFolds(7, ONE, (good(0), good(1))),
        ]


async def test_nothing_is_confirmed_before_all_of_its_batch_is_committed(clock: Clock) -> None:
    async with running(clock) as log:
        log.open.clear()
        waiting = [*log.record(ONE, good(0)), *log.record(TWO, good(0))]
        await clock.advance(3600.0)
        assert [command.job for command in log.commands] == [ONE], "one after the other"
        assert not any(task.done() for task in waiting)
        log.open.set()
        await clock.settle()
        assert [command.job for command in log.commands] == [ONE, TWO]
        assert all(task.done() for task in waiting)


async def test_what_ends_during_a_commit_goes_with_the_next_one(clock: Clock) -> None:
    async with running(clock) as log:
        log.open.clear()
        log.record(ONE, good(0))
        await clock.advance(BATCH_SECONDS)
        log.record(ONE, good(1), good(2))
        await clock.advance(3600.0)
        assert log.commands == [RecordFolds(7, ONE, (good(0),))]
        log.open.set()
        await clock.advance(BATCH_SECONDS)
        assert log.commands[1:] == [RecordFolds(7, ONE, (good(1), good(2)))]


async def test_a_command_has_a_bound_and_the_rest_follows_in_order(clock: Clock) -> None:
    async with running(clock) as log:
        results = [good(fold) for fold in range(2 * BATCH_RESULTS + 1)]
        waiting = log.record(ONE, *results)
        await clock.advance(3 * BATCH_SECONDS)
        assert [len(command.done) for command in log.commands] == [BATCH_RESULTS, BATCH_RESULTS, 1]
        assert [fold for command in log.commands for fold in command.done] == results
        assert all(task.done() for task in waiting)


async def test_who_has_gone_meanwhile_holds_nobody_up_and_its_result_counts(clock: Clock) -> None:
    """The task of a fold may be cancelled, when its job was, just as the fold ends."""
    async with running(clock) as log:
        gone, stays = log.record(ONE, good(0), good(1))
        await clock.settle()
        gone.cancel()
        await clock.advance(BATCH_SECONDS)
        assert log.commands == [RecordFolds(7, ONE, (good(0), good(1)))]
        assert stays.done()
        (later,) = log.record(ONE, good(2))
        await clock.advance(BATCH_SECONDS)
        assert later.done()


async def test_what_a_commit_raises_ends_it_and_confirms_nothing(clock: Clock) -> None:
    async with running(clock) as log:
        log.error = EpochLost("epoch 7 is over: 8 is current")
        waiting = [*log.record(ONE, good(0)), *log.record(TWO, good(0))]
        await clock.advance(BATCH_SECONDS)
        with pytest.raises(EpochLost, match="8 is current"):
            await log.running
        assert [command.job for command in log.commands] == [ONE], "nothing more is committed"
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()


async def test_so_many_may_wait_and_no_more(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "_MAX_WAITING", 2)
    async with running(clock) as log:
        log.open.clear()
        waiting = log.record(ONE, *(good(fold) for fold in range(5)))
        await clock.advance(3600.0)
        assert log.recorder._waiting.qsize() == 2
        log.open.set()
        await clock.advance(5 * BATCH_SECONDS)
        assert all(task.done() for task in waiting)
        assert [fold.fold for command in log.commands for fold in command.done] == [0, 1, 2, 3, 4]


# ---------------------------------------------------------------- as the trainer uses it
class Link:
    """An agent that answers every command with `answer`."""

    def __init__(self, answer: Exception | None = None) -> None:
        self.answer = answer
        self.proposed: list[Command] = []

    async def propose(self, command: Command) -> SimpleNamespace:
        self.proposed.append(command)
        if self.answer is not None:
            raise self.answer
        return SimpleNamespace(value=None)


def recorder_of(link: Any, folder: Path) -> Recorder:
    return Trainer(link, None, 7, folder, "inline")._recorder  # type: ignore[arg-type]


@pytest.mark.parametrize("refusal", [None, Rejected("not_found", "job one is gone")])
async def test_a_refused_result_is_wanted_no_more(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture, refusal: Rejected | None
) -> None:
    clock.hold()
    link = Link(None if refusal is None else CommandRejected(refusal))
    recorder = recorder_of(link, tmp_path)
    run = asyncio.create_task(recorder.run())
    (waiting,) = [asyncio.create_task(recorder.record(ONE, good(0)))]
    await clock.advance(BATCH_SECONDS)
    assert waiting.done(), "refused or not: there is nothing left to wait for"
    assert link.proposed == [RecordFolds(7, ONE, (good(0),))], "and nothing is tried again"
    assert ("job one is gone" in caplog.text) is (refusal is not None)
    run.cancel()


async def test_a_stale_epoch_is_the_end(clock: Clock, tmp_path: Path) -> None:
    clock.hold()
    stale = Rejected("stale_epoch", "epoch 7 is over: 8 is current")
    recorder = recorder_of(Link(CommandRejected(stale)), tmp_path)
    run = asyncio.create_task(recorder.run())
    waiting = asyncio.create_task(recorder.record(ONE, good(0)))
    await clock.advance(BATCH_SECONDS)
    with pytest.raises(EpochLost, match="8 is current"):
        await run
    assert not waiting.done()
    waiting.cancel()
