"""Free ports in a row, for nodes that a test is about to start, also where several runs of tests go on side by side."""

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

FIRST, STEP, RANGES = 27_900, 48, 100
_locks = Path(tempfile.gettempdir()) / "parvada-test-ports"
_mine: dict[int, int] = {}
"""The ranges of this process, each with the descriptor of its lock. The kernel lets go of them when it ends."""
_lent: set[int] = set()
"""Those of them that somebody has: nodes that do not run yet, or not at present, leave their ports free."""


def lend(count: int) -> int:
    """The first of `count` free ports in a row, until `give_back`, below those that the kernel gives to clients: a node
    that starts late must not find its port taken by some client's connection, nor by another test's node."""
    assert count <= STEP
    own = sorted(_mine)
    for number in own + [(os.getpid() + number) % RANGES for number in range(RANGES)]:
        base = FIRST + STEP * number
        if number not in _lent and _reserved(number) and _free(base, count):
            _lent.add(number)
            return base
    raise AssertionError("no free ports")


def give_back(base: int) -> None:
    """What `lend` gave; a second time changes nothing."""
    _lent.discard((base - FIRST) // STEP)


@contextlib.contextmanager
def lent(count: int) -> Iterator[int]:
    base = lend(count)
    try:
        yield base
    finally:
        give_back(base)


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
