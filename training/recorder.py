"""Commits the results of folds: what ends within a moment is one segment and one entry of the log.

Results are gathered for up to half a second or a megabyte, and go at once when nothing else is in flight. What folds of
a tallied job brought beyond their tallies goes into a segment first; a job's small segments are merged as they come (as
the runs of a log-structured merge tree), so that thousands of slow fits leave a dozen of them.
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from consensus.messages import FoldDone, FoldFailed, FoldTally, HeldBlob, RecordFolds
from consensus.ports import CommandRejected
from consensus.state import Digest, JobId
from training.errors import TrainingError
from training.results import encode_segment

log = logging.getLogger(__name__)

GATHER_SECONDS = 0.5
GATHER_BYTES = 1 << 20
GATHER_RESULTS = 512
"""So that a command stays far below its bound of 1 MiB, with the longest reasons, too."""
STORE_RETRY_SECONDS = 2.0


class Measured(msgspec.Struct, frozen=True):
    """A finished fold of a tallied job; `row` is encoded by `training.results`."""

    tally: FoldTally
    row: bytes


Result = Measured | FoldDone | FoldFailed
Pack = Callable[[JobId, Sequence[bytes]], Awaitable[bytes]]


class ResultStore(Protocol):
    """Where results are kept."""

    def segments(self, job: JobId) -> tuple[Digest, ...] | None:
        """What the replicated state knows of a job's segments; None once the job takes no results any more."""
        ...

    async def store(self, segment: bytes) -> HeldBlob:
        """Returns when it is on two nodes. Raises TrainingError."""
        ...

    async def commit(self, command: RecordFolds) -> object:
        """Returns when it is applied here. Raises CommandRejected."""
        ...


class _Tail(msgspec.Struct, frozen=True):
    """A segment that is small enough to be merged into the next one."""

    digest: Digest
    rows: tuple[bytes, ...]
    bytes: int


class _Waiting:
    """A result, and who waits for it."""

    def __init__(self, job: JobId, result: Result, done: asyncio.Future[None]) -> None:
        self.job, self.result, self.done = job, result, done


async def pack_in_thread(job: JobId, rows: Sequence[bytes]) -> bytes:
    """A segment of these rows: a megabyte takes some milliseconds."""
    return await asyncio.to_thread(encode_segment, job, rows)


class Recorder:
    """`busy` tells whether folds are in flight whose results may come in a moment. What `store` raises beyond its
    declared errors ends `run`."""

    def __init__(self, epoch: int, store: ResultStore, busy: Callable[[], bool], pack: Pack = pack_in_thread) -> None:
        self._epoch = epoch
        self._store = store
        self._pack = pack
        self._busy = busy
        self._waiting: deque[_Waiting] = deque()
        self._news = asyncio.Event()
        self._tails: dict[JobId, list[_Tail]] = {}

    async def record(self, job: JobId, result: Result) -> None:
        """Returns when the result is in the replicated state (or is wanted no more)."""
        waiting = _Waiting(job, result, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._news.set()
        await waiting.done

    def look(self) -> None:
        """A fold has ended, or is about to: there may be nothing left to wait for."""
        self._news.set()

    async def run(self) -> None:
        while True:
            batch = await self._gather()
            for job in dict.fromkeys(waiting.job for waiting in batch):
                await self._write(job, [waiting.result for waiting in batch if waiting.job == job])
            for waiting in batch:
                if not waiting.done.done():
                    waiting.done.set_result(None)

    async def _gather(self) -> list[_Waiting]:
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_SECONDS):
                while self._busy() and not self._is_full():
                    self._news.clear()
                    await self._news.wait()
        batch, size = [self._waiting.popleft()], 0
        while self._waiting and len(batch) < GATHER_RESULTS and size < GATHER_BYTES:
            batch.append(self._waiting.popleft())
            size += _size(batch[-1].result)
        return batch

    def _is_full(self) -> bool:
        if len(self._waiting) >= GATHER_RESULTS:
            return True
        return sum(_size(waiting.result) for waiting in self._waiting) >= GATHER_BYTES

    # ---------------------------------------------------------------- one job's share of a batch
    async def _write(self, job: JobId, results: Sequence[Result]) -> None:
        try:
            await self._commit(job, results)
        except CommandRejected as refused:
            if self._store.segments(job) is None:
                log.warning("results.unwanted: %s: %s", job, refused.reason)
            elif len(results) > 1:
                for result in results:  # one of them is at fault: the others count
                    await self._write(job, [result])
            else:
                await self._give_up(job, results[0], refused)

    async def _commit(self, job: JobId, results: Sequence[Result]) -> None:
        measured = [result for result in results if isinstance(result, Measured)]
        segment, replaced, rows = await self._segment(job, measured)
        await self._store.commit(
            RecordFolds(
                self._epoch,
                job,
                done=tuple(result for result in results if isinstance(result, FoldDone)),
                failed=tuple(result for result in results if isinstance(result, FoldFailed)),
                tallies=tuple(result.tally for result in measured),
                segment=segment,
                replaces=tuple(tail.digest for tail in replaced),
            )
        )
        if segment is not None:
            self._remember(job, _Tail(segment.digest, rows, sum(map(len, rows))))

    async def _give_up(self, job: JobId, result: Result, refused: CommandRejected) -> None:
        """The log does not take this result, and never will: its candidate fails with the reason, or the fold would be
        run again and again."""
        tally = result.tally if isinstance(result, Measured) else result
        log.error("result.refused: %s/%s/%d: %s", job, tally.candidate, tally.fold, refused.reason)
        if isinstance(result, FoldFailed):
            return
        failed = FoldFailed(tally.candidate, tally.fold, f"its result was refused: {refused.reason}")
        try:
            await self._store.commit(RecordFolds(self._epoch, job, failed=(failed,)))
        except CommandRejected as error:
            log.warning("results.unwanted: %s: %s", job, error.reason)

    # ---------------------------------------------------------------- segments
    async def _segment(
        self, job: JobId, measured: Sequence[Measured]
    ) -> tuple[HeldBlob | None, list[_Tail], tuple[bytes, ...]]:
        """The segment of these rows, merged with those at the job's end that are not larger, and what it replaces."""
        if not measured:
            return None, [], ()
        rows = tuple(result.row for result in measured)
        replaced: list[_Tail] = []
        for tail in reversed(self._mergeable(job)):
            size = sum(map(len, rows))
            if tail.bytes > 2 * size or tail.bytes + size > GATHER_BYTES:
                break
            rows = (*tail.rows, *rows)
            replaced.insert(0, tail)
        packed = await self._pack(job, rows)
        return await self._stored(job, packed), replaced, rows

    async def _stored(self, job: JobId, segment: bytes) -> HeldBlob | None:
        """Results wait for as long as it takes (a full disk, too few nodes), or until their job takes none any more."""
        while self._store.segments(job) is not None:
            try:
                return await self._store.store(segment)
            except TrainingError as error:
                log.warning("segment.not_stored: %s", error)
                await asyncio.sleep(STORE_RETRY_SECONDS)
        return None

    def _mergeable(self, job: JobId) -> list[_Tail]:
        """The segments at the end of a job that this recorder wrote, and that the state still refers to."""
        known = self._store.segments(job) or ()
        tails = [tail for tail in self._tails.get(job, ()) if tail.digest in known]
        self._tails[job] = tails
        return tails

    def _remember(self, job: JobId, tail: _Tail) -> None:
        if self._store.segments(job) is None:
            self._tails.pop(job, None)
        elif tail.bytes < GATHER_BYTES:
            self._tails.setdefault(job, []).append(tail)
            self._mergeable(job)


def _size(result: Result) -> int:
    return len(result.row) if isinstance(result, Measured) else 256
