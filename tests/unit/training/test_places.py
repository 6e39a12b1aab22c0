"""Tasks wait for CPUs, are spread over the nodes, and never take more than is offered."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from training.places import Places


class Tasks:
    """Each holds its place until it is told to go."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.here: Counter[str] = Counter()
        self._tasks: list[asyncio.Task[None]] = []

    async def add(self, count: int = 1, cpus: int = 1) -> None:
        self._tasks += [asyncio.create_task(self._run(cpus)) for _ in range(count)]
        await self._settled()

    async def end(self, count: int = 1) -> None:
        """The oldest ones, whether they run or wait."""
        for _ in range(count):
            self._tasks.pop(0).cancel()
        await self._settled()

    async def _run(self, cpus: int) -> None:
        async with self.places.taken(cpus) as node:
            self.here[node] += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.here[node] -= 1

    @staticmethod
    async def _settled() -> None:
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
async def tasks() -> Tasks:
    return Tasks(Places())


async def test_the_least_busy_node_is_next_and_nobody_has_more_than_it_offers(tasks: Tasks) -> None:
    tasks.places.offer({"a": 1, "b": 3})
    assert tasks.places.total == 4
    await tasks.add(2)
    assert tasks.here == {"a": 1, "b": 1}
    await tasks.add(8)
    assert tasks.here == {"a": 1, "b": 3}


async def test_who_waits_is_next_when_one_ends_and_who_gives_up_is_forgotten(tasks: Tasks) -> None:
    tasks.places.offer({"a": 1})
    await tasks.add(4)
    assert tasks.here == {"a": 1}
    await tasks.end()
    assert tasks.here == {"a": 1}
    await tasks.end(3)
    assert tasks.here == {"a": 0}
    await tasks.add()
    assert tasks.here == {"a": 1}


async def test_what_is_offered_grows_and_shrinks_under_what_runs(tasks: Tasks) -> None:
    tasks.places.offer({"a": 2})
    await tasks.add(6)
    tasks.places.offer({"a": 2, "b": 1})
    await tasks.add(0)
    assert tasks.here == {"a": 2, "b": 1}
    tasks.places.offer({"a": 1, "b": 1})
    await tasks.add(0)
    assert tasks.here == {"a": 2, "b": 1}, "what runs may end"
    await tasks.end()
    assert tasks.here == {"a": 1, "b": 1}
    tasks.places.offer({"a": 1})
    await tasks.end(2)
    assert tasks.here == {"a": 1, "b": 0}


async def test_a_task_that_wants_more_than_any_node_has_gets_one_alone(tasks: Tasks) -> None:
    tasks.places.offer({"a": 2})
    await tasks.add()
    await tasks.add(cpus=3)
    assert tasks.here == {"a": 1}
    await tasks.end()
    assert tasks.here == {"a": 1}
    await tasks.add()
    assert tasks.here == {"a": 1}


async def test_a_place_that_came_just_as_its_task_was_cancelled_is_given_back() -> None:
    places = Places()

    async def hold() -> None:
        async with places.taken(1):
            await asyncio.Event().wait()

    waiting = asyncio.create_task(hold())
    await asyncio.sleep(0)
    places.offer({"a": 1})  # its turn has come, and it has not run since
    waiting.cancel()
    await asyncio.wait([waiting])
    async with AsyncExitStack() as stack:
        assert await asyncio.wait_for(stack.enter_async_context(places.taken(1)), 20) == "a"
