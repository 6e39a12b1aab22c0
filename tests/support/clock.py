"""Time that a test moves: what waits for an hour waits for nobody, and that nothing happens in it can be seen.

The fixture `clock` (`tests/unit/conftest.py`) is the time of the test's event loop: every `asyncio.sleep`, `timeout`
and `call_later` in it follows, those of the product too. Real sockets, threads and processes go on as ever, so nothing
times out unless the test says so. Code that reads a clock of its own is given this one.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")

QUIET_TURNS, MOST_TURNS = 3, 50
"""Turns of the loop, one after another, in which nobody but the test had anything to do; and turns in all, for there
may be tasks that never rest."""


class Clock:
    """Seconds of the loop's time: the machine's own monotonic ones, unless held, and those that the test has added."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ahead = 0.0
        self._held: float | None = None

    def __call__(self) -> float:
        return (time.monotonic() if self._held is None else self._held) + self._ahead

    def hold(self) -> None:
        """From now on no time passes but by `advance` and `jump`, however slow the machine is: what happens all the
        same did not wait for time. Wait with `outside`; an `asyncio.sleep` ends only when time is moved."""
        self._held = time.monotonic()

    @contextlib.contextmanager
    def standing(self) -> Iterator[None]:
        """`hold` for a while: what happens meanwhile has waited for no deadline."""
        self.hold()
        try:
            yield
        finally:
            now, self._held = self(), None
            self._ahead = now - time.monotonic()

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass at once: all that falls due in them runs in its order, each at its own time. What that
        leaves to threads, sockets or processes may still be under way on return."""
        end = self() + seconds
        await self.settle()
        while (due := min(self._timers(), default=end)) < end:
            self._ahead += max(0.0, due - self())
            await self.settle()
        self._ahead += max(0.0, end - self())
        await self.settle()

    async def jump(self, seconds: float) -> None:
        """`seconds` pass in a moment, as when a machine wakes from sleep: all that was due in them runs now, and what
        is periodic once. What was just beginning has set its deadline before."""
        await self.settle()
        self._ahead += seconds
        await self.settle()

    async def until(self, condition: Callable[[], bool], step: float = 0.2, patience: float = 30.0) -> None:
        """Let time pass, `step` seconds at once, until `condition` holds.

        Sockets, threads and processes get a millisecond of their own time for each step: what waits for them with a
        deadline may see it pass too soon. `patience`, in the machine's own seconds, bounds a failure alone."""
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, f"it has not come by {self():.1f}"
            await self.advance(step)
            await asyncio.to_thread(time.sleep, 0.001)

    async def run(self, work: Awaitable[T], step: float = 0.2, patience: float = 30.0) -> T:
        """What `work` returns or raises, time passing meanwhile as in `until`."""
        task = asyncio.ensure_future(work)
        try:
            await self.until(task.done, step, patience)
            return task.result()
        finally:
            task.cancel()

    async def outside(self, what: str, probe: Callable[[], object], patience: float = 30.0) -> None:
        """Wait for what sockets, threads and processes do, also while time is held. Raises AssertionError."""
        deadline = time.monotonic() + patience
        while not probe():
            assert time.monotonic() < deadline, f"waited {patience} s for {what}"
            await asyncio.to_thread(time.sleep, 0.002)

    async def settle(self) -> None:
        """Let every task go on until it waits for time, for the network or for a thread."""
        ready: Sized = self._loop._ready  # type: ignore[attr-defined]  # nobody else can tell
        quiet = 0
        for _ in range(MOST_TURNS):
            await asyncio.sleep(0)
            quiet = 0 if len(ready) else quiet + 1
            if quiet == QUIET_TURNS:
                return

    def _timers(self) -> Iterator[float]:
        scheduled: list[asyncio.TimerHandle] = self._loop._scheduled  # type: ignore[attr-defined]  # nobody else can tell
        return (timer.when() for timer in scheduled if not timer.cancelled())
