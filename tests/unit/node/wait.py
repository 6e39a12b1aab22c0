"""Waiting with a deadline, and whether a process lives."""

import asyncio
import time
from collections.abc import Callable

from node.processes import deathwatch


def alive(pid: int) -> bool:
    fields = deathwatch.stat_fields(pid)
    return fields is not None and fields[0] not in "ZX"


def wait_for(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.01)


async def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        await asyncio.sleep(0.01)
