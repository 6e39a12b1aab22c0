"""Main of a worker process of the inline executor: tasks come in on stdin, results go out on stdout, length-framed.

Frames are pickles between this process and the parent that started it, over their own pipe; nothing else can write
to it.
"""

import ctypes
import os
import pickle
import signal
import struct
import sys
from typing import Any, BinaryIO

from training.worker import execute, preload

HEADER = struct.Struct(">Q")
_PR_SET_PDEATHSIG = 1


def read_frame(source: BinaryIO) -> Any:
    """The next object, or None at the end of the stream."""
    head = source.read(HEADER.size)
    if len(head) < HEADER.size:
        return None
    return pickle.loads(source.read(HEADER.unpack(head)[0]))  # noqa: S301 - from our own parent or child


def frame(value: object) -> bytes:
    body = pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)
    return HEADER.pack(len(body)) + body


def main() -> None:
    parent = os.getppid()
    # A fit that outlives its trainer would keep a CPU busy for a result that nobody takes.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # an estimator that prints must not write between frames
    preload()
    _answer(output, None)
    while (task := read_frame(sys.stdin.buffer)) is not None:
        function, payload, data_key, sources = task
        try:
            result: tuple[bool, object] = (True, execute(function, payload, data_key, sources))
        except Exception as error:
            result = (False, f"{type(error).__name__}: {error}"[:500])
        _answer(output, result)


def _answer(output: BinaryIO, value: object) -> None:
    output.write(frame(value))
    output.flush()


if __name__ == "__main__":
    main()
