"""The predict path under load: bounded, fair to those who stay, and counted."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from serving.cache import ModelCache
from serving.engines import Engine
from serving.errors import BadInput, NotReady, Overloaded, UnknownModel
from serving.payload import JsonCodec
from serving.predictor import Call, Predictor, PredictorLimits
from serving.stats import RequestCounter
from serving.view import VersionView
from tests.support.clock import Clock
from tests.unit.serving.builders import IRIS_INPUTS, model_of, version_of, view_of

BODY = json.dumps({"rows": [dict.fromkeys((field.name for field in IRIS_INPUTS), 1.5)] * 2}).encode()


class GatedEngine:
    """Sums the features, once `gate` is open."""

    outputs: tuple[str, ...] = ("predict",)
    classes: list[Any] | None = None

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.runs = 0

    def run(self, frame: Any, outputs: Sequence[str]) -> dict[str, Any]:
        self.entered.release()
        assert self.gate.wait(60)
        self.runs += 1
        return {"predict": frame.sum(axis=1).to_numpy()}


class Bench:
    def __init__(self, pool: ThreadPoolExecutor, limits: PredictorLimits) -> None:
        self.engine = GatedEngine()
        self.counter = RequestCounter()
        view = view_of(model_of(version_of(task="regression", label="number")))
        self.predictor = Predictor(lambda: view, ModelCache(self._locate, self._load, pool), self.counter, limits)

    async def _locate(self, digest: str) -> Path:
        return Path(digest)

    def _load(self, path: Path, version: VersionView) -> Engine:
        return self.engine

    def ask(self, model: str = "iris", body: bytes = BODY) -> "asyncio.Task[bytes]":
        call = Call(model=model, version=None, key="", codec=JsonCodec(1000), body=body)
        return asyncio.create_task(self.predictor.predict(call))

    async def entered(self) -> None:
        """Until a thread is inside the engine."""
        assert await asyncio.to_thread(self.engine.entered.acquire, timeout=60)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    with ThreadPoolExecutor(1) as pool:
        made = Bench(pool, PredictorLimits(threads=1, waiting=2))
        yield made
        made.engine.gate.set()
        made.predictor.close()


async def test_answers_and_counts(bench: Bench) -> None:
    bench.engine.gate.set()
    assert json.loads(await bench.ask())["predictions"] == [6.0, 6.0]
    with pytest.raises(BadInput):
        await bench.ask(body=b"{}")
    with pytest.raises(UnknownModel):
        await bench.ask(model="other")
    (row,) = bench.counter.rows()
    assert (row.requests, row.errors, row.rows) == (2, 1, 2)
    assert sum(row.histogram.values()) == 1
    assert row.timings.infer > 0
    assert bench.predictor.admitted == 0


async def test_what_cannot_wait_is_refused_at_once(bench: Bench) -> None:
    admitted = [bench.ask() for _ in range(3)]
    await bench.entered()
    with pytest.raises(Overloaded):
        await bench.ask()
    bench.engine.gate.set()
    assert len(set(await asyncio.gather(*admitted))) == 1
    assert bench.predictor.admitted == 0
    assert json.loads(await bench.ask())["predictions"] == [6.0, 6.0]


async def test_a_client_that_leaves_the_queue_is_never_computed(bench: Bench) -> None:
    running, queued = bench.ask(), bench.ask()
    await bench.entered()
    queued.cancel()
    await asyncio.wait([queued])
    assert bench.predictor.admitted == 1
    bench.engine.gate.set()
    await running
    assert bench.engine.runs == 1


async def test_a_client_that_leaves_in_mid_computation_keeps_its_place_until_it_ends(bench: Bench) -> None:
    running = bench.ask()
    await bench.entered()
    running.cancel()
    await asyncio.wait([running])
    assert bench.predictor.admitted == 1
    bench.engine.gate.set()
    await bench.ask()
    assert bench.predictor.admitted == 0
    assert bench.engine.runs == 2


async def test_a_wait_has_a_deadline(bench: Bench, clock: Clock) -> None:
    asked = bench.ask()
    await bench.entered()
    clock.hold()
    await clock.advance(59.0)
    assert not asked.done()
    await clock.advance(1.0)
    with pytest.raises(NotReady, match="No answer within 60 s"):
        await asked
