"""A program on a terminal of its own, as a person would run it: what it drew so far, and keys sent to it."""

import contextlib
import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


class Terminal:
    """The near end of a pseudo terminal."""

    def __init__(self, descriptor: int, process: "subprocess.Popen[bytes]") -> None:
        self._descriptor = descriptor
        self.process = process
        self._drawn = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def drawn(self) -> str:
        """Everything the program has written, escape sequences among it."""
        return self._drawn.decode(errors="replace")

    def send(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the far end is closed
            while chunk := os.read(self._descriptor, 65536):
                self._drawn += chunk


@contextlib.contextmanager
def on_terminal(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], columns: int = 120, rows: int = 35
) -> Iterator[Terminal]:
    """Run `command` on a new terminal; it is killed at the end if it still runs."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(command, cwd=cwd, env=dict(environment), stdin=far, stdout=far, stderr=far)
    os.close(far)
    try:
        yield Terminal(near, process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        os.close(near)
