"""Commits the results of folds in small batches: many folds end in the same moment, one log entry holds them all."""

import asyncio
from collections.abc import Awaitable, Callable

from consensus.messages import FoldDone, FoldFailed, RecordFolds
from consensus.state import JobId

BATCH_SECONDS = 0.05
BATCH_RESULTS = 64
_MAX_WAITING = 4_096

Result = FoldDone | FoldFailed
Commit = Callable[[RecordFolds], Awaitable[None]]


class Recorder:
    """`commit` proposes a command and returns when it is applied here; what it raises ends `run`."""

    def __init__(self, epoch: int, commit: Commit) -> None:
        self._epoch = epoch
        self._commit = commit
        self._waiting: asyncio.Queue[tuple[JobId, Result, asyncio.Future[None]]] = asyncio.Queue(_MAX_WAITING)

    async def record(self, job: JobId, result: Result) -> None:
        """Returns when the result is in the replicated state (or is wanted no more)."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await self._waiting.put((job, result, done))
        await done

    async def run(self) -> None:
        while True:
            batch = [await self._waiting.get()]
            # What ends within the same few milliseconds travels together.
            await asyncio.sleep(BATCH_SECONDS)
            while len(batch) < BATCH_RESULTS and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            for job in dict.fromkeys(job for job, _, _ in batch):
                results = [result for of, result, _ in batch if of == job]
                await self._commit(
                    RecordFolds(
                        self._epoch,
                        job,
                        done=tuple(result for result in results if isinstance(result, FoldDone)),
                        failed=tuple(result for result in results if isinstance(result, FoldFailed)),
                    )
                )
            for _, _, done in batch:
                if not done.done():
                    done.set_result(None)
