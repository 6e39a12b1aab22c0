"""Background tasks of this package: named, kept by their owner, and never silent when they fail."""

import asyncio
import logging
from collections.abc import Coroutine, Iterable
from typing import Any

log = logging.getLogger(__name__)


def start(coro: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task whose failure is logged when it happens, not when its owner stops."""
    task = asyncio.create_task(coro, name=name)
    task.add_done_callback(_report)
    return task


async def stop(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel all and wait until they have ended."""
    kept = list(tasks)
    for task in kept:
        task.cancel()
    await asyncio.gather(*kept, return_exceptions=True)


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("task.failed", exc_info=error, extra={"parvada_keys": {"task": task.get_name()}})
