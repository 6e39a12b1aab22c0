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
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

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


def run(call: Call) -> Returned | Raised:
    try:
        return Returned(find(call.function)(*call.args))
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
        sink.write(_answer(unpack(source.read(int.from_bytes(header)))))
        sink.flush()


def _answer(call: Call) -> bytes:
    outcome = run(call)
    try:
        return pack(outcome)
    except Exception as error:  # a result that no pipe can carry is the function's fault
        return pack(Raised(None, f"the result of {call.function} cannot be passed on: {error}"))


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
