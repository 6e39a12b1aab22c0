"""A process of `training.pool`: takes one call at a time from its owner, runs it, gives back the result.

Frames on standard input and output: 8-byte big-endian length, then a pickle. Both ends are ours and the pipes are
private to them; bytes from the network only ever come as files that the called function parses.
"""

import contextlib
import ctypes
import importlib
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

import msgspec

from training.outbox import Outbox
from training.ports import Word

HEADER_BYTES = 8
OOM_SCORE = 900
"""When memory runs out the kernel ends this process before its owner."""
_PR_SET_PDEATHSIG = 1


class Ready(msgspec.Struct, frozen=True):
    """The first word of a process: it has imported what it needs."""


class Call(msgspec.Struct, frozen=True):
    """`function` is `module:name`."""

    function: str
    args: tuple[Any, ...]
    emits: bool = False
    """Whether it has an argument `emit` more, to tell messages by while it runs."""


class Told(msgspec.Struct, frozen=True):
    """What a call tells before it ends."""

    words: tuple[Word, ...]


class Returned(msgspec.Struct, frozen=True):
    value: Any


class Raised(msgspec.Struct, frozen=True):
    """`error` is the exception itself where it survives a pickle; its text always is there."""

    error: Exception | None
    text: str


def pack(message: object) -> bytes:
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(HEADER_BYTES) + body


def unpack(body: bytes) -> Any:
    """The message of a frame without its length."""
    return pickle.loads(body)  # noqa: S301  from our own child or parent, over their pipe


def find(function: str) -> Callable[..., object]:
    module, _, name = function.partition(":")
    found: Callable[..., object] = getattr(importlib.import_module(module), name)
    return found


def run(call: Call, **more: Any) -> Returned | Raised:
    try:
        return Returned(find(call.function)(*call.args, **more))
    except Exception as error:  # the caller gets it
        return Raised(_portable(error), f"{type(error).__name__}: {error}")


def _portable(error: Exception) -> Exception | None:
    """The same exception if it can be pickled and made again, which those with their own `__init__` often cannot."""
    try:
        copy = unpack(pickle.dumps(error))
    except Exception:  # anything may happen in a foreign __reduce__
        return None
    return error if type(copy) is type(error) else None


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Until the owner closes the pipe."""
    while header := source.read(HEADER_BYTES):
        call: Call = unpack(source.read(int.from_bytes(header)))
        if call.emits:
            with Sender(sink) as sender:
                outcome = run(call, emit=sender.emit)
        else:
            outcome = run(call)
        sink.write(_packed(call, outcome))
        sink.flush()


def _packed(call: Call, outcome: Returned | Raised) -> bytes:
    try:
        return pack(outcome)
    except Exception as error:  # a result that no pipe can carry is the function's fault
        return pack(Raised(None, f"the result of {call.function} cannot be passed on: {error}"))


class Sender:
    """Sends what one call tells, from a thread that begins with the first message. Once closed nobody but the caller
    writes to the pipe."""

    def __init__(self, sink: IO[bytes]) -> None:
        self._sink = sink
        self._outbox = Outbox()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._outbox.close()
        if self._thread is not None:
            self._thread.join()
        self._send()

    def emit(self, message: Word) -> None:
        self._outbox.put(message)
        if self._thread is None:
            thread = threading.Thread(target=self._send, name="sender", daemon=True)
            with contextlib.suppress(RuntimeError):  # no memory is left for a thread: told when the call ends
                thread.start()
                self._thread = thread

    def _send(self) -> None:
        for batch in self._outbox.batches():
            self._sink.write(pack(Told(batch)))
            self._sink.flush()


def die_with_parent() -> None:
    """What outlives its owner would keep a CPU busy for a result that nobody takes."""
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def main() -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is the owner's to judge
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    # The pipe is for answers alone: whatever prints, prints to the log.
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if preload := sys.argv[1]:
        find(preload)()
    sink.write(pack(Ready()))
    sink.flush()
    serve(sys.stdin.buffer, sink)
