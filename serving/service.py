"""What a front's handlers share: the registry's view, the models in memory, the counts, and whether all is ready."""

import asyncio
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp import web

from serving import auth, engines
from serving.bodies import BodyBudget
from serving.cache import CacheLimits, ModelCache
from serving.errors import NotReady, ServingError
from serving.front_link import FrontLink
from serving.predictor import Predictor, PredictorLimits
from serving.proxy import Proxy
from serving.settings import FrontSettings
from serving.stats import ModelStats, RequestCounter, StatsReport, merge
from serving.view import ServingView

log = logging.getLogger(__name__)

REPORT_SECONDS = 1.0
BODIES_AT_ONCE = 4
"""Of the largest size: so much memory may all prediction bodies of a front take together."""
RETRY_SECONDS = 5.0
"""After which an aliased model that could not be loaded is tried again."""


class InFlight:
    """Counts requests being answered, and knows when the last has been."""

    def __init__(self) -> None:
        self.count = 0
        self.stopping = False
        """Answers now tell their clients to close the connection."""
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self.count += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self.count -= 1
        if self.count == 0:
            self._none.set()

    async def drain(self, seconds: float) -> bool:
        """Wait until there are none; False if time ran out."""
        self.stopping = True
        try:
            async with asyncio.timeout(seconds):
                await self._none.wait()
        except TimeoutError:
            return False
        return True


class Service:
    """Built once by the front. `keep_models_warm`, `report` and `link.follow` run for as long as the front does."""

    def __init__(self, settings: FrontSettings) -> None:
        self.settings = settings
        self.link = FrontLink(settings.socket, self._on_view)
        self.counter = RequestCounter()
        # One thread: loads go one after another, so that they take at most half of the interpreter's time.
        self._loads = ThreadPoolExecutor(1, thread_name_prefix="load")
        self.cache = ModelCache(self.link.locate, engines.load, self._loads, CacheLimits())
        limits = PredictorLimits(max_bytes=settings.max_predict_bytes)
        self.predictor = Predictor(self.view, self.cache, self.counter, limits)
        self.proxy = Proxy(lambda: self.link.session, str(os.getpid()))
        self.bodies = BodyBudget(BODIES_AT_ONCE * settings.max_predict_bytes)
        self.in_flight = InFlight()
        self.warmed = asyncio.Event()
        """Set once the first view has come and every aliased model has been tried."""
        self._changed = asyncio.Event()
        self._others: tuple[ModelStats, ...] = ()

    async def close(self) -> None:
        self.predictor.close()
        await self.cache.close()
        self._loads.shutdown(wait=False, cancel_futures=True)
        await self.link.close()

    def view(self) -> ServingView:
        """The last view. Raises `NotReady` before the first."""
        if self.link.view is None:
            raise NotReady("This front has not heard from its node's agent yet")
        return self.link.view

    def allow(self, request: web.Request, role: str) -> None:
        """Raises `Unauthenticated` or `Forbidden`; before the first view, `NotReady` where tokens are wanted."""
        if self.settings.auth == "all":
            auth.allow(self.view(), self.settings.auth, request.headers.get("Authorization"), role)

    def not_ready(self) -> str:
        """Why this node cannot serve what it should, or "". While the agent is away its last word stands."""
        view = self.link.view
        if view is None:
            return "This front has not heard from its node's agent yet"
        if not view.ready:
            return view.not_ready_reason or "The node is not ready"
        for model, version in view.aliased():
            if not self.cache.loadable(version.digest):
                state, reason = self.cache.state(version.digest)
                return f"Model {model.name!r} version {version.version} is {reason or state.lower()}"
        return ""

    def stats(self) -> tuple[ModelStats, ...]:
        """The node's counts: this front's own and, as of a second ago, the other fronts'."""
        return merge((*self.counter.rows(), *self._others))

    async def report(self) -> None:
        """Hand the counts to the agent each second, for ever."""
        while True:
            await asyncio.sleep(REPORT_SECONDS)
            reply = await self.link.push(StatsReport(os.getpid(), self.counter.rows()))
            if reply is not None:
                self._others = reply.others

    async def keep_models_warm(self) -> None:
        """Load every aliased model as soon as the view names it, and forget what the view no longer has."""
        failed = False
        while True:
            try:
                async with asyncio.timeout(RETRY_SECONDS if failed else None):
                    await self._changed.wait()
            except TimeoutError:
                log.debug("models.retry")
            self._changed.clear()
            failed = not await self._warm(self.view())
            self.warmed.set()

    async def _warm(self, view: ServingView) -> bool:
        self.cache.keep({version.digest for model in view.models for version in model.versions})
        every = True
        for model, version in view.aliased():
            if self.cache.loadable(version.digest):
                continue
            try:
                await self.cache.get(version)
                log.info("model.loaded model=%s version=%d", model.name, version.version)
            except ServingError as error:
                every = False
                log.warning("model.not_loaded model=%s version=%d error=%s", model.name, version.version, error)
        return every

    def _on_view(self, view: ServingView) -> None:
        self._changed.set()


SERVICE: Final = web.AppKey("service", Service)
