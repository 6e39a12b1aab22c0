"""The workshop's own process: takes one call at a time from its agent, runs it, gives back the result.

Frames on standard input and output: 8-byte big-endian length, then a pickle. Both ends are ours and the pipes are
private to them; bytes from the network only ever come as files that the called function parses.
"""

import contextlib
import importlib
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import msgspec

HEADER_BYTES = 8
OOM_SCORE = 900
"""When memory runs out the kernel ends this process before the agent."""


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
    return len(body).to_bytes(HEADER_BYTES, "big") + body


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
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301  our own bytes
    except Exception:  # anything may happen in a foreign __reduce__
        return None
    return error if type(copy) is type(error) else None


def serve(source: IO[bytes], sink: IO[bytes]) -> None:
    """Until the agent closes the pipe."""
    while header := source.read(HEADER_BYTES):
        call = pickle.loads(source.read(int.from_bytes(header, "big")))  # noqa: S301  from our agent's pipe
        sink.write(_answer(call))
        sink.flush()


def _answer(call: Call) -> bytes:
    outcome = run(call)
    try:
        return pack(outcome)
    except Exception as error:  # a result that no pipe can carry is the function's fault
        return pack(Raised(None, f"the result of {call.function} cannot be passed on: {error}"))


def main() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
    # The pipe is for answers alone: whatever prints, prints to the log.
    sink = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(sys.stdin.buffer, sink)


if __name__ == "__main__":
    main()
