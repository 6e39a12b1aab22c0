"""An asyncio event loop in virtual time: it runs what is due when it is told to, and never waits."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class _Nothing:
    """A selector without files."""

    def select(self, timeout: float | None) -> list[Any]:
        return []


class VirtualLoop(asyncio.BaseEventLoop):
    """`clock` is its time. One for each simulated process, so that one that is stopped does nothing."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self._clock, self._selector = clock, _Nothing()
        self._clock_resolution = 1e-6
        self._failed: BaseException | None = None
        self.set_exception_handler(lambda loop, context: None)

    def time(self) -> float:
        return self._clock()

    def _process_events(self, events: list[Any]) -> None:
        """There are none."""

    def root(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task that only ends with the process, or breaks it: its exception is raised by `run_due`."""
        task = self.create_task(coroutine)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and task.exception() is not None:
            self._failed = task.exception()

    def run_due(self) -> None:
        """Everything that can go on now, until all of it waits."""
        if not self._ready and self._scheduled and self._scheduled[0].when() > self._clock():  # type: ignore[attr-defined]
            return
        for _ in range(1000):
            self.call_soon(self.stop)
            self.run_forever()
            if self._failed is not None:
                raise self._failed
            if not self._ready:  # type: ignore[attr-defined]  # nobody else can tell
                return
        raise AssertionError("a task never waits")

    def end(self) -> None:
        """The process is gone: no task goes on."""
        for task in asyncio.all_tasks(self):
            task.cancel()
        while asyncio.all_tasks(self):
            self.call_soon(self.stop)
            self.run_forever()
        self.close()
