"""Root tasks that nobody awaits: each has a name, is kept, and tells when it ends though meant to run for good."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from node import logs

log = logs.get("node.tasks")

OnFailure = Callable[[str, BaseException | None], None]
"""Called with the task's name and its error; None when it merely returned."""

STOP_SECONDS = 10.0
"""How long cancelled tasks may take to put their things in order."""
AGAIN_SECONDS = 2.0
"""A task that has not ended by then is cancelled again: before Python 3.12, `asyncio.wait_for` swallows a cancellation
that comes at the same moment as what it waits for."""


def guarded(coro: Coroutine[Any, Any, object], name: str, on_failure: OnFailure) -> asyncio.Task[None]:
    """Run `coro` as a root task. Ending by itself, with or without an error, is a failure; being cancelled is not."""
    task = asyncio.create_task(_guard(coro, name, on_failure), name=name)
    task.add_done_callback(lambda _: coro.close())  # cancelled before its first step, `coro` was never awaited
    return task


async def _guard(coro: Coroutine[Any, Any, object], name: str, on_failure: OnFailure) -> None:
    error: BaseException | None = None
    try:
        await coro
    except Exception as caught:  # the fence of a root task: whatever it is, it is reported
        log.exception("task.failed", task=name)
        error = caught
    else:
        log.error("task.ended", task=name)
    on_failure(name, error)


class Tasks:
    """The root tasks of one owner, started one by one and stopped together in reverse order."""

    def __init__(self, on_failure: OnFailure) -> None:
        self._on_failure = on_failure
        self._tasks: list[asyncio.Task[None]] = []
        self._brief: set[asyncio.Task[None]] = set()

    def start(self, coro: Coroutine[Any, Any, object], name: str) -> asyncio.Task[None]:
        """A task that runs as long as its owner does."""
        task = guarded(coro, name, self._on_failure)
        self._tasks = [*(known for known in self._tasks if not known.done()), task]
        return task

    def run(self, coro: Coroutine[Any, Any, object], name: str) -> asyncio.Task[None]:
        """A task that may end: only an error counts as failure."""
        task = asyncio.create_task(self._run_brief(coro, name), name=name)
        self._brief.add(task)
        task.add_done_callback(self._brief.discard)
        task.add_done_callback(lambda _: coro.close())
        return task

    async def stop(self, timeout: float = STOP_SECONDS) -> None:
        """Cancel all, newest first, and wait. A task that ignores its cancellation is named in the log and left."""
        pending: set[asyncio.Task[None]] = set()
        for task in [*self._brief, *reversed(self._tasks)]:
            task.cancel()
            pending.add(task)
        deadline = asyncio.get_running_loop().time() + timeout
        while pending and (left := deadline - asyncio.get_running_loop().time()) > 0:
            _, pending = await asyncio.wait(pending, timeout=min(left, AGAIN_SECONDS))
            for task in pending:
                task.cancel()
        for task in pending:
            log.error("task.stuck", task=task.get_name(), seconds=timeout)
        self._tasks.clear()

    async def _run_brief(self, coro: Coroutine[Any, Any, object], name: str) -> None:
        try:
            await coro
        except Exception as caught:  # see _guard
            log.exception("task.failed", task=name)
            self._on_failure(name, caught)
