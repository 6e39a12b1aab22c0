"""The clock that tests move: what is due happens, at its time and in its order; what is not, does not."""

import asyncio
import threading
import time

import pytest

from tests.support.clock import Clock


async def test_an_hour_passes_at_once_and_in_order(clock: Clock) -> None:
    seen: list[tuple[str, float]] = []
    begun = clock()

    async def tell(name: str, every: float) -> None:
        while True:
            await asyncio.sleep(every)
            seen.append((name, round(clock() - begun, -2)))

    tasks = [asyncio.create_task(tell("slow", 1600.0)), asyncio.create_task(tell("quick", 1000.0))]
    real = time.monotonic()
    await clock.advance(3600.0)
    assert clock() - begun > 3600.0 > time.monotonic() - real
    assert seen == [("quick", 1000.0), ("slow", 1600.0), ("quick", 2000.0), ("quick", 3000.0), ("slow", 3200.0)]
    for task in tasks:
        task.cancel()


async def test_what_is_not_due_does_not_happen(clock: Clock) -> None:
    waiting = asyncio.create_task(asyncio.wait_for(asyncio.Event().wait(), 60.0))
    await clock.advance(59.0)
    assert not waiting.done()
    await clock.advance(1.0)
    with pytest.raises(TimeoutError):
        await waiting


async def test_the_time_of_a_thread_is_its_own(clock: Clock) -> None:
    done = threading.Event()
    async with asyncio.timeout(3600.0):
        waiting = asyncio.create_task(asyncio.to_thread(done.wait))
        await clock.advance(3000.0)
        assert not waiting.done()
        done.set()
        assert await waiting
