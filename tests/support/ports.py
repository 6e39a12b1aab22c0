"""Free ports in a row, for nodes that a test is about to start."""

import contextlib
import os
import socket

STEP = 48


def free_range(count: int) -> int:
    """The first of `count` free ports in a row, below those that the kernel gives to clients: a node that starts late
    must not find its port taken by some client's connection."""
    assert count <= STEP
    for number in range(100):
        base = 27_900 + STEP * ((os.getpid() + number) % 100)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + count):
                probe = stack.enter_context(socket.socket())
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # no wait for connections that are over
                probe.bind(("127.0.0.1", port))
            return base
    raise AssertionError("no free ports")
