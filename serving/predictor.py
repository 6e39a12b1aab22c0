"""The one predict path, whatever the format: route, admit, load, then decode, infer and encode in a thread."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec

from serving import router
from serving.bodies import inflate
from serving.cache import ModelCache
from serving.engines import Engine
from serving.errors import NotReady, Overloaded
from serving.payload import Codec, Request, Served, to_features
from serving.stats import RequestCounter, Timings
from serving.view import ServingView, VersionView


class PredictorLimits(msgspec.Struct, frozen=True):
    threads: int = 2
    """The interpreter runs one at a time: the second keeps a short request from waiting for a long one."""
    waiting: int = 64
    """Requests admitted beyond those in a thread; more are refused, for they would only time out later."""
    seconds: float = 60.0
    """How long one request may wait for its answer, apart from the load of the model."""
    max_bytes: int = 64 * 1024 * 1024
    """Of a body once unpacked."""


class Call(msgspec.Struct, frozen=True):
    """One request for predictions, its body still as it came."""

    model: str
    version: int | None
    key: str
    """Decides the arm of a traffic split."""
    codec: Codec
    body: bytes
    encoding: str = ""


class _Done(msgspec.Struct, frozen=True):
    answer: bytes
    rows: int
    timings: Timings


class Predictor:
    """For one event loop; owns the threads that predict."""

    def __init__(
        self,
        view: Callable[[], ServingView],
        cache: ModelCache,
        counter: RequestCounter,
        limits: PredictorLimits | None = None,
    ) -> None:
        self._view = view
        self._cache = cache
        self._counter = counter
        self._limits = limits or PredictorLimits()
        self._pool = ThreadPoolExecutor(self._limits.threads, thread_name_prefix="predict")
        self._admitted = 0

    @property
    def admitted(self) -> int:
        """Requests that are waiting for a model or a thread, or in one."""
        return self._admitted

    def close(self) -> None:
        """Drop what has not begun."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def predict(self, call: Call) -> bytes:
        """The encoded answer. Raises any `ServingError`."""
        begun = time.perf_counter_ns()
        view = self._view()
        model = router.model(view, call.model)
        version = router.choose(model, call.version, call.key)
        try:
            self._admit()
            try:
                engine = await self._cache.get(version)
                done = await self._in_thread(call, Served(model, version, engine))
            finally:
                self._admitted -= 1
        except Exception:
            self._counter.failed(model.name, version.version, time.perf_counter_ns() - begun)
            raise
        total = time.perf_counter_ns() - begun
        self._counter.answered(model.name, version.version, done.rows, total, done.timings)
        return done.answer

    async def load(self, version: VersionView) -> Engine:
        """Have a version in memory. Raises `LoadFailed` or `NotReady`."""
        return await self._cache.get(version)

    def _admit(self) -> None:
        most = self._limits.threads + self._limits.waiting
        if self._admitted >= most:
            raise Overloaded(f"{most} predictions are waiting on this node's front; try again, or another node")
        self._admitted += 1

    async def _in_thread(self, call: Call, served: Served) -> _Done:
        """A request whose client has gone is dropped if it has not begun; else it keeps its place until its
        thread is free, for the thread cannot be stopped."""
        loop = asyncio.get_running_loop()
        work = self._pool.submit(self._work, call, served, time.perf_counter_ns())
        try:
            async with asyncio.timeout(self._limits.seconds):
                return await asyncio.wrap_future(work)
        except TimeoutError as error:
            raise NotReady(f"No answer within {self._limits.seconds:g} s") from error
        finally:
            if not work.done() and not work.cancel():
                self._admitted += 1
                work.add_done_callback(lambda _: loop.call_soon_threadsafe(self._release))

    def _release(self) -> None:
        self._admitted -= 1

    def _work(self, call: Call, served: Served, submitted: int) -> _Done:
        begun = time.perf_counter_ns()
        request: Request = call.codec.decode(inflate(call.body, call.encoding, self._limits.max_bytes), served.version)
        outputs = call.codec.outputs(request, served)
        features = to_features(request, served.version)
        ready = time.perf_counter_ns()
        results = served.engine.run(features, outputs)
        inferred = time.perf_counter_ns()
        answer = call.codec.encode(request, served, results)
        ended = time.perf_counter_ns()
        timings = Timings(begun - submitted, ready - begun, inferred - ready, ended - inferred)
        return _Done(answer, request.rows, timings)
