"""Load beside tests: a process a core that is busy for half of the time, as on a machine that others use too."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

BUSY_SECONDS = 0.05


def _burn(share: float) -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        until = time.perf_counter() + BUSY_SECONDS
        while time.perf_counter() < until:
            pass
        time.sleep(BUSY_SECONDS * (1.0 / share - 1.0))


@contextmanager
def half_of_all_cores(share: float = 0.5) -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    burning = [context.Process(target=_burn, args=(share,), daemon=True) for _ in range(os.cpu_count() or 1)]
    for process in burning:
        process.start()
    try:
        yield
    finally:
        for process in burning:
            process.terminate()
            process.join()
