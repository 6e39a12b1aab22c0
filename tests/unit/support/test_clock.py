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


async def test_while_it_stands_still_nothing_falls_due_and_the_rest_goes_on(clock: Clock) -> None:
    with clock.standing():
        begun = clock()
        waiting = asyncio.create_task(asyncio.sleep(0.001))
        await asyncio.to_thread(time.sleep, 0.01)
        await clock.settle()
        assert clock() == begun
        assert not waiting.done()
    assert begun <= clock()
    await waiting


async def test_the_time_of_a_thread_is_its_own(clock: Clock) -> None:
    done = threading.Event()
    async with asyncio.timeout(3600.0):
        waiting = asyncio.create_task(asyncio.to_thread(done.wait))
        await clock.advance(3000.0)
        assert not waiting.done()
        done.set()
        assert await waiting


async def test_time_passes_until_it_is_so_and_no_longer(clock: Clock) -> None:
    begun, ticks = clock(), 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(100.0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await clock.until(lambda: ticks == 3, step=10.0)
    assert 300.0 <= clock() - begun < 320.0
    with pytest.raises(AssertionError, match="has not come"):
        await clock.until(lambda: False, patience=0.0)
    ticking.cancel()


async def test_a_result_or_an_error_comes_as_soon_as_time_lets_it(clock: Clock) -> None:
    begun = clock()
    assert await clock.run(asyncio.sleep(1000.0, "woken"), step=50.0) == "woken"
    with pytest.raises(TimeoutError):
        await clock.run(asyncio.wait_for(asyncio.Event().wait(), 1000.0), step=50.0)
    assert 2000.0 <= clock() - begun < 2200.0
    endless = asyncio.create_task(asyncio.Event().wait())
    with pytest.raises(AssertionError, match="has not come"):
        await clock.run(endless, patience=0.0)
    await clock.settle()
    assert endless.cancelled(), "what comes to nothing is not left behind"


async def test_while_it_is_held_only_the_test_moves_time(clock: Clock) -> None:
    clock.hold()
    before, done = clock(), threading.Event()
    sleeping = asyncio.create_task(asyncio.sleep(0.01))
    threading.Timer(0.05, done.set).start()
    await clock.outside("a thread's own time to pass", done.is_set)
    assert clock() == before
    assert not sleeping.done()
    await clock.advance(0.01)
    assert sleeping.done()


async def test_a_jump_runs_what_is_periodic_once(clock: Clock) -> None:
    clock.hold()
    rounds = 0

    async def tick() -> None:
        nonlocal rounds
        while True:
            await asyncio.sleep(1.0)
            rounds += 1

    ticking = asyncio.create_task(tick())
    await clock.settle()
    await clock.jump(3600.0)
    assert rounds == 1
    await clock.advance(2.0)
    assert rounds == 3
    ticking.cancel()


async def test_what_does_not_come_is_named(clock: Clock) -> None:
    with pytest.raises(AssertionError, match="for the moon"):
        await clock.outside("the moon", lambda: False, patience=0.01)
