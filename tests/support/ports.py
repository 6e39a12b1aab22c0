"""Free ports in a row, for nodes that a test is about to start, also where several runs of tests go on side by side."""

import contextlib
import fcntl
import os
import socket
import tempfile
from pathlib import Path

FIRST, STEP, RANGES = 27_900, 48, 100
_locks = Path(tempfile.gettempdir()) / "parvada-test-ports"
_mine: dict[int, int] = {}
"""The ranges of this process, each with the descriptor of its lock. The kernel lets go of them when it ends."""


def free_range(count: int) -> int:
    """The first of `count` free ports in a row, below those that the kernel gives to clients: a node that starts late
    must not find its port taken by some client's connection, nor by a node of another process's tests."""
    assert count <= STEP
    own = sorted(_mine)
    for number in own + [(os.getpid() + number) % RANGES for number in range(RANGES)]:
        base = FIRST + STEP * number
        if _reserved(number) and _free(base, count):
            return base
    raise AssertionError("no free ports")


def _reserved(number: int) -> bool:
    """Whether this process has this range for itself."""
    if number in _mine:
        return True
    _locks.mkdir(exist_ok=True)
    lock = os.open(_locks / str(number), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return False
    _mine[number] = lock
    return True


def _free(base: int, count: int) -> bool:
    with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
        for port in range(base, base + count):
            probe = stack.enter_context(socket.socket())
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # no wait for connections that are over
            probe.bind(("127.0.0.1", port))
        return True
    return False
