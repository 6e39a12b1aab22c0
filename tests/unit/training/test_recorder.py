"""The recorder: nothing is confirmed before it is committed, what ends together is one segment and one command, and a
result that the log will not have fails its candidate."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from consensus.codec import encode_command
from consensus.messages import Command, FoldDone, FoldFailed, FoldTally, HeldBlob, RecordFinal, RecordFolds, Rejected
from consensus.ports import CommandRejected
from consensus.state import Candidate, CandidateId, Digest, JobId, JobState, Json, NodeId, Tally, Unit
from tests.support.clock import Clock
from training.errors import EpochLost, TrainingError
from training.ledger import fold_result
from training.recipes import final_result
from training.recorder import (
    GATHER_BYTES,
    GATHER_RESULTS,
    GATHER_SECONDS,
    STORE_RETRY_SECONDS,
    Measured,
    Recorder,
    Result,
)
from training.results import FoldDetail, Row, decode_segment, encode_detail, encode_row, encode_segment
from training.tasks import FoldOutcome, RefitOutcome
from training.trainer import Trainer

ONE, TWO = JobId("one"), JobId("two")
ME = NodeId("a" * 32)


def good(fold: int, candidate: str = "0.1", bulk: int = 0) -> Measured:
    detail = encode_detail(FoldDetail({"r2": 0.5}, warnings=("x" * bulk,) if bulk else ()))
    tally = FoldTally(CandidateId(candidate), fold, 0.5, 0.1, 1.0)
    return Measured(tally, encode_row(Row(tally.candidate, fold, 7, 0.5, 0.1, 1.0, msgspec.Raw(detail))))


def whole(fold: int, candidate: str = "0.1") -> FoldDone:
    return FoldDone(CandidateId(candidate), fold, Json(b'{"r2":0.5}'), 0.1, 1.0)


def bad(fold: int, candidate: str = "0.1") -> FoldFailed:
    return FoldFailed(CandidateId(candidate), fold, "ValueError: no")


class Log:
    """Takes the commands of a recorder of epoch 7, and keeps what a state would; while it is not `open` they are under
    way. `busy`: whether folds are in flight. Refuses every command with one of the candidates in `refused`."""

    def __init__(self) -> None:
        self.commands: list[RecordFolds] = []
        self.blobs: dict[Digest, bytes] = {}
        self.referenced: dict[JobId, list[Digest]] = {ONE: [], TWO: []}
        self.open = asyncio.Event()
        self.open.set()
        self.error: Exception | None = None
        self.full = 0
        self.refused: set[str] = set()
        self.busy = True
        self.recorder = Recorder(7, self, lambda: self.busy, pack_at_once)
        self.running = asyncio.create_task(self.recorder.run())

    def segments(self, job: JobId) -> tuple[Digest, ...] | None:
        return tuple(self.referenced[job]) if job in self.referenced else None

    async def store(self, segment: bytes) -> HeldBlob:
        if self.full:
            self.full -= 1
            raise TrainingError("the disk is full")
        digest = Digest(hashlib.sha256(segment).hexdigest())
        self.blobs[digest] = segment
        return HeldBlob(digest, len(segment), (ME,))

    async def commit(self, command: RecordFolds) -> None:
        self.commands.append(command)
        await self.open.wait()
        if self.error is not None:
            raise self.error
        told = {tally.candidate for tally in command.tallies} | {failed.candidate for failed in command.failed}
        if command.job not in self.referenced or told & self.refused:
            raise CommandRejected(Rejected("invalid", "not that one"))
        kept = [digest for digest in self.referenced[command.job] if digest not in command.replaces]
        self.referenced[command.job] = kept + ([command.segment.digest] if command.segment else [])

    def record(self, job: JobId, *results: Result) -> list["asyncio.Task[None]"]:
        return [asyncio.create_task(self.recorder.record(job, result)) for result in results]

    def rows(self, job: JobId) -> list[tuple[str, int]]:
        """What is in the segments that the state refers to."""
        found = []
        for digest in self.referenced[job]:
            found += [(row.candidate, row.fold) for row in decode_segment(self.blobs[digest], job)]
        return found  # type: ignore[return-value]


@asynccontextmanager
async def running(clock: Clock) -> AsyncIterator[Log]:
    clock.hold()
    log = Log()
    try:
        yield log
    finally:
        log.running.cancel()
        await asyncio.wait([log.running])


async def pack_at_once(job: JobId, rows: Sequence[bytes]) -> bytes:
    """A thread knows no clock of ours."""
    return encode_segment(job, rows)


async def test_results_of_a_moment_are_one_segment_and_one_command_of_the_epoch(clock: Clock) -> None:
    async with running(clock) as log:
        waiting = log.record(ONE, good(0), bad(0, "0.2"), good(2), bad(4))
        await clock.advance(GATHER_SECONDS / 2)
        waiting += log.record(ONE, good(3))
        assert log.commands == [], "others may end in this moment"
        await clock.advance(GATHER_SECONDS / 2)
        await clock.settle()
        (command,) = log.commands
        assert command.epoch == 7
        assert command.tallies == (good(0).tally, good(2).tally, good(3).tally)
        assert command.failed == (bad(0, "0.2"), bad(4))
        assert log.rows(ONE) == [("0.1", 0), ("0.1", 2), ("0.1", 3)]
        assert all(task.done() for task in waiting)


async def test_it_does_not_wait_when_nothing_else_is_in_flight(clock: Clock) -> None:
    async with running(clock) as log:
        log.record(ONE, good(0))
        await clock.settle()
        assert log.commands == []
        log.busy = False
        log.recorder.look()
        await clock.settle()
        assert len(log.commands) == 1
        log.record(ONE, good(1))
        await clock.settle()
        assert len(log.commands) == 2


async def test_failures_and_whole_results_make_no_segment(clock: Clock) -> None:
    async with running(clock) as log:
        log.busy = False
        log.record(ONE, bad(0), whole(1))
        await clock.settle()
        assert log.commands == [RecordFolds(7, ONE, (whole(1),), (bad(0),))]
        assert not log.blobs


async def test_each_job_has_a_command_of_its_own_in_the_order_of_their_first_results(clock: Clock) -> None:
    async with running(clock) as log:
        for job, result in ((TWO, good(0)), (ONE, good(0)), (ONE, good(1)), (TWO, bad(1))):
            log.record(job, result)
        await clock.advance(GATHER_SECONDS)
        await clock.settle()
        assert [(command.job, len(command.tallies), len(command.failed)) for command in log.commands] == [
            (TWO, 1, 1),
            (ONE, 2, 0),
        ]


async def test_nothing_is_confirmed_before_all_of_its_batch_is_committed(clock: Clock) -> None:
    async with running(clock) as log:
        log.open.clear()
        waiting = [*log.record(ONE, good(0)), *log.record(TWO, good(0))]
        await clock.advance(3600.0)
        await clock.settle()
        assert [command.job for command in log.commands] == [ONE], "one after the other"
        assert not any(task.done() for task in waiting)
        log.open.set()
        await clock.settle()
        assert [command.job for command in log.commands] == [ONE, TWO]
        assert all(task.done() for task in waiting)


async def test_a_command_has_a_bound_and_the_rest_follows_in_order(clock: Clock) -> None:
    async with running(clock) as log:
        results = [whole(fold) for fold in range(2 * GATHER_RESULTS + 1)]
        waiting = log.record(ONE, *results)
        await clock.settle()
        assert [len(command.done) for command in log.commands] == [GATHER_RESULTS, GATHER_RESULTS]
        await clock.advance(GATHER_SECONDS)
        await clock.settle()
        assert [fold for command in log.commands for fold in command.done] == results
        assert all(task.done() for task in waiting)


async def test_a_megabyte_does_not_wait_for_more(clock: Clock) -> None:
    async with running(clock) as log:
        log.record(ONE, *(good(fold, bulk=GATHER_BYTES // 3) for fold in range(4)))
        await clock.settle()
        assert [len(command.tallies) for command in log.commands] == [3, 1] or len(log.commands[0].tallies) == 4


async def test_small_segments_are_merged_so_that_thousands_of_folds_leave_a_dozen(clock: Clock) -> None:
    async with running(clock) as log:
        log.busy = False
        for fold in range(200):
            log.record(ONE, good(fold))
            await clock.settle()
        assert len(log.commands) == 200
        assert len(log.referenced[ONE]) <= 10
        assert log.rows(ONE) == [("0.1", fold) for fold in range(200)], "all of them, in order, each once"


async def test_large_segments_stay_as_they_are(clock: Clock) -> None:
    async with running(clock) as log:
        log.busy = False
        for fold in range(3):
            log.record(ONE, good(fold, bulk=GATHER_BYTES))
            await clock.settle()
        await clock.settle()
        assert len(log.referenced[ONE]) == 3
        assert not any(command.replaces for command in log.commands)


async def test_a_segment_that_cannot_be_stored_is_tried_again_and_its_results_wait(clock: Clock) -> None:
    async with running(clock) as log:
        log.busy, log.full = False, 2
        (waiting,) = log.record(ONE, good(0))
        await clock.settle()
        assert log.commands == []
        for _ in range(2):
            assert not waiting.done()
            await clock.advance(STORE_RETRY_SECONDS)
            await clock.settle()
        assert waiting.done()
        assert log.rows(ONE) == [("0.1", 0)]


async def test_of_a_job_that_has_ended_nothing_is_kept_and_nobody_waits(clock: Clock) -> None:
    async with running(clock) as log:
        log.busy, log.full = False, 10**9
        (waiting,) = log.record(ONE, good(0))
        await clock.settle()
        del log.referenced[ONE]
        await clock.advance(STORE_RETRY_SECONDS)
        await clock.settle()
        assert waiting.done()
        assert not log.blobs


async def test_a_result_that_is_refused_fails_its_candidate_and_the_others_count(clock: Clock) -> None:
    async with running(clock) as log:
        log.refused = {"0.2"}
        waiting = log.record(ONE, good(0), good(0, "0.2"), good(1))
        await clock.advance(GATHER_SECONDS)
        await clock.settle()
        assert all(task.done() for task in waiting)
        assert log.rows(ONE) == [("0.1", 0), ("0.1", 1)]
        failed = [fold for command in log.commands for fold in command.failed]
        assert failed == [FoldFailed(CandidateId("0.2"), 0, "its result was refused: not that one")]


async def test_who_has_gone_meanwhile_holds_nobody_up_and_its_result_counts(clock: Clock) -> None:
    """The task of a fold may be cancelled, when its job was, just as the fold ends."""
    async with running(clock) as log:
        gone, stays = log.record(ONE, good(0), good(1))
        await clock.settle()
        gone.cancel()
        await clock.advance(GATHER_SECONDS)
        await clock.settle()
        assert log.rows(ONE) == [("0.1", 0), ("0.1", 1)]
        assert stays.done()


async def test_what_a_commit_raises_ends_it_and_confirms_nothing(clock: Clock) -> None:
    async with running(clock) as log:
        log.error = EpochLost("epoch 7 is over: 8 is current")
        waiting = [*log.record(ONE, good(0)), *log.record(TWO, good(0))]
        await clock.advance(GATHER_SECONDS)
        with pytest.raises(EpochLost, match="8 is current"):
            await log.running
        assert [command.job for command in log.commands] == [ONE], "nothing more is committed"
        assert not any(task.done() for task in waiting)
        for task in waiting:
            task.cancel()


# ---------------------------------------------------------------- as the trainer uses it
class Link:
    """An agent that answers every command with `answer`; the job is under way."""

    def __init__(self, answer: Exception | None = None) -> None:
        self.answer = answer
        self.proposed: list[Command] = []
        self.state = SimpleNamespace(jobs={ONE: SimpleNamespace(state=JobState.RUNNING, segments=())})

    async def propose(self, command: Command) -> SimpleNamespace:
        self.proposed.append(command)
        if self.answer is not None:
            raise self.answer
        return SimpleNamespace(value=None)


def recorder_of(link: Any, folder: Path) -> Recorder:
    return Trainer(link, None, 7, folder, "inline")._recorder  # type: ignore[arg-type]


async def test_a_result_of_a_job_that_is_gone_is_wanted_no_more(
    clock: Clock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock.hold()
    link = Link(CommandRejected(Rejected("not_found", "job one is gone")))
    link.state.jobs.clear()
    recorder = recorder_of(link, tmp_path)
    run = asyncio.create_task(recorder.run())
    (waiting,) = [asyncio.create_task(recorder.record(ONE, whole(0)))]
    await clock.advance(GATHER_SECONDS)
    assert waiting.done(), "there is nothing left to wait for"
    assert link.proposed == [RecordFolds(7, ONE, (whole(0),))], "and nothing is tried again"
    assert "job one is gone" in caplog.text
    run.cancel()


@pytest.mark.parametrize("told", ["𝄞" * 20_000, "\udcff" * 10])
def test_whatever_a_fit_says_why_it_failed_can_be_committed(told: str) -> None:
    """Hundreds at a time: a command has a bound, and its texts are UTF-8."""
    tally = Tally(1, 1, greater_is_better=True)
    unit = Unit("d", 1, "y", "regression", "r2", Json(b"{}"), tally=tally)
    candidate = Candidate(CandidateId("0.0"), 0, "Ridge", Json(b"{}"), 1, 1)
    failed = fold_result(unit, candidate, 0, FoldOutcome(failed=told), 7)
    assert isinstance(failed, FoldFailed)
    assert len(encode_command(RecordFolds(7, ONE, failed=(failed,) * GATHER_RESULTS))) < 1 << 20
    final = final_result(RefitOutcome(failed=told))
    assert 0 < len(encode_command(RecordFinal(7, ONE, candidate.id, final))) < 1 << 14


async def test_a_stale_epoch_is_the_end(clock: Clock, tmp_path: Path) -> None:
    clock.hold()
    stale = Rejected("stale_epoch", "epoch 7 is over: 8 is current")
    recorder = recorder_of(Link(CommandRejected(stale)), tmp_path)
    run = asyncio.create_task(recorder.run())
    waiting = asyncio.create_task(recorder.record(ONE, whole(0)))
    await clock.advance(GATHER_SECONDS)
    with pytest.raises(EpochLost, match="8 is current"):
        await run
    assert not waiting.done()
    waiting.cancel()
