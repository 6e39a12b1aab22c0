"""Main of a front process: builds the service, owns the client port together with the node's other fronts, and
stops without losing a request in flight.

Exit status: 0 after SIGTERM or SIGINT, 1 when the settings or the port cannot be used or a task has failed.
"""

import asyncio
import logging
import os
import signal
import sys
import warnings
from collections.abc import Mapping
from typing import NoReturn

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from serving import edge, v2
from serving.service import SERVICE, Service
from serving.settings import FrontSettings, SettingsError, read_settings

log = logging.getLogger(__name__)

STOP_SECONDS = 10.0
_DRAIN_SECONDS = 8.0
"""For requests in flight; what is left of `STOP_SECONDS` is for cutting the rest."""
_CUT_SECONDS = 0.5
_WARM_SECONDS = 2.0
"""How long the port stays closed for the first view and its models: until then the other fronts get the clients."""
_BACKLOG = 1024


def make_app(service: Service) -> web.Application:
    """The application of one front, around a service that its caller runs."""
    app = web.Application(middlewares=[edge.edge], client_max_size=service.settings.max_predict_bytes)
    app[SERVICE] = service
    app.on_response_prepare.append(edge.mark)
    edge.add_routes(app)
    v2.add_routes(app)
    return app


async def serve(settings: FrontSettings, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. Raises `OSError` if the port cannot be had, and what a failed task raised."""
    service = Service(settings)
    # Bodies stay as they came: predictions undo the encoding in their thread, the proxy passes it on.
    runner = web.AppRunner(
        make_app(service),
        access_log=None,
        handler_cancellation=True,
        auto_decompress=False,
        shutdown_timeout=_CUT_SECONDS,
    )
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(service.link.follow(), name="view"),
                group.create_task(service.keep_models_warm(), name="models"),
                group.create_task(service.report(), name="stats"),
            ]
            await _first_of(stop, service.warmed, _WARM_SECONDS)
            await runner.setup()
            site = web.TCPSite(runner, settings.host, settings.port, reuse_port=True, backlog=_BACKLOG)
            await site.start()
            log.info("front.listening host=%s port=%d", settings.host, settings.port)
            await stop.wait()
            await _stop(runner, site, service)
            for task in tasks:
                task.cancel()
    finally:
        await runner.cleanup()
        await service.close()


async def _first_of(stop: asyncio.Event, warmed: asyncio.Event, seconds: float) -> None:
    waits = [asyncio.create_task(stop.wait(), name="stop"), asyncio.create_task(warmed.wait(), name="warmed")]
    await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)


async def _stop(runner: web.AppRunner, site: web.TCPSite, service: Service) -> None:
    """Close the port, cut the streams that never end, let the rest finish within `STOP_SECONDS`."""
    log.info("front.stopping in_flight=%d", service.in_flight.count)
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await site.stop()
            service.proxy.close()
            # Before the runner's own clean-up, which stops reading the bodies of requests in flight.
            if not await service.in_flight.drain(_DRAIN_SECONDS):
                log.warning("front.cut requests=%d", service.in_flight.count)
            await runner.cleanup()
    except TimeoutError:
        log.warning("front.cut requests=%d", service.in_flight.count)


def _not_the_clients_fault(record: logging.LogRecord) -> bool:
    """Bytes that are not HTTP are answered with 400, and must not fill the log with traces."""
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _run(settings: FrontSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


def main(env: Mapping[str, str] | None = None) -> int:
    """Run one front to its end; returns the exit status."""
    try:
        settings = read_settings(os.environ if env is None else env)
    except SettingsError as error:
        sys.stderr.write(f"parvada front: {error}\n")
        return 1
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("aiohttp.server").addFilter(_not_the_clients_fault)
    # What estimators have to say about single requests (an unseen category, an overflow) would flood the log.
    warnings.filterwarnings("ignore", module=r"sklearn|numpy|pandas")
    # Set before numpy is imported: every front has its core, threads of its own would only take them from others.
    for library in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(library, "1")
    try:
        asyncio.run(_run(settings))
    except* OSError as errors:
        log.error("front.failed error=%s", "; ".join(str(e) for e in errors.exceptions))  # noqa: TRY400  # says it all
        return_code = 1
    else:
        return_code = 0
    return return_code


def run() -> NoReturn:
    """`main` as a process of its own."""
    code = main()
    logging.shutdown()
    # Not sys.exit, which would wait for a thread in a long prediction or load: nobody waits for its answer now.
    os._exit(code)


if __name__ == "__main__":
    run()
