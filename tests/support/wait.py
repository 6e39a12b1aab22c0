"""Waiting for a condition with a deadline: the only wait of tests that run in real time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_for(what: str, probe: Callable[[], T | None], timeout: float = 20.0, every: float = 0.05) -> T:
    """Call `probe` until it returns something truthy; its exceptions of connection count as "not yet".

    Raises:
        AssertionError: names what did not come, and the last thing seen.
    """
    deadline = time.monotonic() + timeout
    seen: object = None
    while True:
        try:
            found = probe()
            if found:
                return found
            seen = found
        except OSError as error:
            seen = error
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s for {what}; last seen: {seen!r}")
        time.sleep(every)
