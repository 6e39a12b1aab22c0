"""Loaded models by digest: bounded by bytes and count, least recently used out first, one load for many waiters."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Executor
from pathlib import Path
from typing import Literal

import msgspec

from serving.engines import Engine
from serving.errors import LoadFailed, NotReady, ServingError
from serving.view import VersionView

log = logging.getLogger(__name__)

State = Literal["READY", "LOADING", "UNAVAILABLE", "UNKNOWN"]
"""As the inference protocol's repository index names them; UNKNOWN: nobody asked for it here yet."""


class CacheLimits(msgspec.Struct, frozen=True):
    max_count: int = 64
    max_bytes: int = 1 << 30
    """Of the models' files; one model is kept whatever its size."""
    load_seconds: float = 60.0
    """How long a request waits for a load. The load itself goes on, for those who come later."""
    failure_seconds: float = 5.0
    """For how long a failed load is not tried again."""


class _Entry(msgspec.Struct, frozen=True):
    engine: Engine
    bytes: int


class _Failure(msgspec.Struct, frozen=True):
    until: float
    error: ServingError


class ModelCache:
    """For one event loop. `locate` makes a model's file present and says where; `load` runs in `pool`."""

    def __init__(
        self,
        locate: Callable[[str], Awaitable[Path]],
        load: Callable[[Path, VersionView], Engine],
        pool: Executor,
        limits: CacheLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._locate = locate
        self._load = load
        self._pool = pool
        self._limits = limits or CacheLimits()
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._loading: dict[str, asyncio.Task[Engine]] = {}
        self._failures: dict[str, _Failure] = {}
        self._proven: set[str] = set()

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self._entries.values())

    def loadable(self, digest: str) -> bool:
        """Whether it has been loaded here; it may have been put out since, for want of room."""
        return digest in self._proven

    def state(self, digest: str) -> tuple[State, str]:
        """The state and, if it is UNAVAILABLE, the reason."""
        if digest in self._entries:
            return "READY", ""
        if digest in self._loading:
            return "LOADING", ""
        if digest in self._failures:
            return "UNAVAILABLE", str(self._failures[digest].error)
        return ("READY", "") if digest in self._proven else ("UNKNOWN", "")

    async def get(self, version: VersionView) -> Engine:
        """The engine, from memory or after its load. All who ask meanwhile wait for one and the same load, and
        none of them, by going away, takes it from the others. Raises `LoadFailed` or `NotReady`."""
        entry = self._entries.get(version.digest)
        if entry is not None:
            self._entries.move_to_end(version.digest)
            return entry.engine
        task = self._loading.get(version.digest) or self._begin(version)
        try:
            async with asyncio.timeout(self._limits.load_seconds):
                return await asyncio.shield(task)
        except TimeoutError as error:
            raise NotReady(f"The model is still being loaded after {self._limits.load_seconds:g} s") from error

    def keep(self, digests: Collection[str]) -> None:
        """Forget all others: their versions are no longer in the registry."""
        for gone in [d for d in self._entries if d not in digests]:
            del self._entries[gone]
        for gone in [d for d in self._failures if d not in digests]:
            del self._failures[gone]
        self._proven.intersection_update(digests)

    async def close(self) -> None:
        """Stop waiting for loads; a thread that is in one ends by itself."""
        tasks = list(self._loading.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, version: VersionView) -> asyncio.Task[Engine]:
        failure = self._failures.get(version.digest)
        if failure is not None and self._clock() < failure.until:
            raise failure.error
        task = asyncio.create_task(self._bring(version), name=f"load {version.digest[:12]}")
        self._loading[version.digest] = task
        task.add_done_callback(lambda done: self._finished(version, done))
        return task

    async def _bring(self, version: VersionView) -> Engine:
        path = await self._locate(version.digest)
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._load, path, version)

    def _finished(self, version: VersionView, task: asyncio.Task[Engine]) -> None:
        """Here and not in the task, so that it also happens when every waiter has gone."""
        del self._loading[version.digest]
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._admit(version, task.result())
            return
        known = error if isinstance(error, ServingError) else LoadFailed("The model could not be loaded")
        if known is not error:
            log.error("model.load_crashed digest=%s", version.digest, exc_info=error)
        if isinstance(known, LoadFailed):
            log.warning("model.load_failed digest=%s error=%s", version.digest, known)
            self._failures[version.digest] = _Failure(self._clock() + self._limits.failure_seconds, known)

    def _admit(self, version: VersionView, engine: Engine) -> None:
        self._entries[version.digest] = _Entry(engine, version.bytes)
        self._proven.add(version.digest)
        self._failures.pop(version.digest, None)
        while len(self._entries) > 1 and self._over():
            self._entries.popitem(last=False)

    def _over(self) -> bool:
        return len(self._entries) > self._limits.max_count or self.bytes > self._limits.max_bytes
