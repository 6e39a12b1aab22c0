"""The cache: one load for many, bounded, and no waiter can spoil it for another."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving.cache import CacheLimits, ModelCache
from serving.engines import Engine
from serving.errors import LoadFailed, NotReady
from serving.view import VersionView
from tests.support.clock import Clock
from tests.unit.serving.builders import version_of


class CountedEngine:
    """Stands for any engine: the cache never looks inside."""

    outputs: tuple[str, ...] = ("predict",)
    classes: list[Any] | None = None

    def run(self, frame: Any, outputs: Sequence[str]) -> dict[str, Any]:
        raise NotImplementedError


class Loader:
    """Counts loads, and holds them until `gate` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.loads: list[str] = []
        self.error: Exception | None = None

    def __call__(self, path: Path, version: VersionView) -> Engine:
        assert self.gate.wait(60)
        self.loads.append(version.digest)
        if self.error is not None:
            raise self.error
        return CountedEngine()


class Bench:
    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.loader = Loader()
        self.now = 0.0
        self.located = 0
        self.missing = False
        self.pool = pool

    def cache(self, **limits: Any) -> ModelCache:
        return ModelCache(self.locate, self.loader, self.pool, CacheLimits(**limits), clock=lambda: self.now)

    async def locate(self, digest: str) -> Path:
        self.located += 1
        if self.missing:
            raise NotReady("not here")
        return Path(digest)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    with ThreadPoolExecutor(2) as pool:
        yield Bench(pool)


def version(letter: str, size: int = 10) -> VersionView:
    return version_of(digest=letter * 64, size=size)


async def test_many_waiters_one_load(bench: Bench) -> None:
    cache = bench.cache()
    bench.loader.gate.clear()
    waiters = [asyncio.create_task(cache.get(version("a"))) for _ in range(50)]
    await asyncio.sleep(0)
    assert cache.state("a" * 64)[0] == "LOADING"
    bench.loader.gate.set()
    engines = await asyncio.gather(*waiters)
    assert len(bench.loader.loads) == 1
    assert all(engine is engines[0] for engine in engines)
    assert cache.state("a" * 64)[0] == "READY"


async def test_a_cancelled_waiter_leaves_the_load_to_the_others(bench: Bench) -> None:
    cache = bench.cache()
    bench.loader.gate.clear()
    first = asyncio.create_task(cache.get(version("a")))
    others = [asyncio.create_task(cache.get(version("a"))) for _ in range(3)]
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    bench.loader.gate.set()
    await asyncio.gather(*others)
    assert len(bench.loader.loads) == 1


async def test_a_load_that_everybody_left_still_serves_the_next(bench: Bench, clock: Clock) -> None:
    clock.hold()
    cache = bench.cache()
    bench.loader.gate.clear()
    asked = asyncio.create_task(cache.get(version("a")))
    await clock.advance(60.0)
    with pytest.raises(NotReady, match="still being loaded after 60 s"):
        await asked
    bench.loader.gate.set()
    await cache.get(version("a"))
    assert len(bench.loader.loads) == 1


async def test_least_recently_used_goes_first_by_count_and_by_bytes(bench: Bench) -> None:
    cache = bench.cache(max_count=2, max_bytes=100)
    for letter in "abac":
        await cache.get(version(letter))
    await cache.get(version("a"))
    assert bench.loader.loads == [letter * 64 for letter in "abc"]
    await cache.get(version("b"))
    assert len(bench.loader.loads) == 4, "b had been put out"
    await cache.get(version("d", size=95))
    assert cache.bytes == 95
    await cache.get(version("e", size=1000))
    assert cache.bytes == 1000, "one model is kept whatever its size"
    assert cache.loadable("a" * 64)


async def test_a_failed_load_is_remembered_for_a_while_and_then_tried_again(bench: Bench) -> None:
    cache = bench.cache(failure_seconds=5)
    bench.loader.error = LoadFailed("damaged")
    for _ in range(3):
        with pytest.raises(LoadFailed, match="damaged"):
            await cache.get(version("a"))
    assert len(bench.loader.loads) == 1
    assert cache.state("a" * 64) == ("UNAVAILABLE", "damaged")
    bench.now, bench.loader.error = 6.0, None
    await cache.get(version("a"))
    assert cache.loadable("a" * 64)


async def test_all_waiters_hear_of_the_failure(bench: Bench) -> None:
    cache = bench.cache()
    bench.loader.error = LoadFailed("damaged")
    bench.loader.gate.clear()
    waiters = [asyncio.create_task(cache.get(version("a"))) for _ in range(5)]
    await asyncio.sleep(0)
    bench.loader.gate.set()
    outcomes = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LoadFailed] * 5


async def test_a_file_that_is_not_here_is_asked_for_again_at_once(bench: Bench) -> None:
    cache = bench.cache()
    bench.missing = True
    for _ in range(2):
        with pytest.raises(NotReady):
            await cache.get(version("a"))
    bench.missing = False
    await cache.get(version("a"))
    assert bench.located == 3


async def test_what_the_registry_dropped_is_forgotten(bench: Bench) -> None:
    cache = bench.cache()
    await cache.get(version("a"))
    await cache.get(version("b"))
    cache.keep({"b" * 64})
    assert cache.state("a" * 64)[0] == "UNKNOWN"
    assert cache.state("b" * 64)[0] == "READY"
