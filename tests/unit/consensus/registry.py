"""The simplest state machine that can tell a lost, a repeated and a reordered command, and runs that end at once."""

from collections.abc import Callable

import msgspec

from consensus.core.disk import Corrupt


class Registry:
    """The state machine: remembers the index at which each key came first. A repeated key changes nothing."""

    def __init__(self, on_apply: Callable[[int, bytes], None] = lambda index, command: None) -> None:
        self.keys: dict[str, int] = {}
        self._on_apply = on_apply

    def apply(self, index: int, command: bytes) -> None:
        self._on_apply(index, command)
        self.keys.setdefault(command.split(b" ", 1)[0].decode(), index)

    def freeze(self) -> Callable[[], bytes]:
        keys = dict(self.keys)
        return lambda: msgspec.msgpack.encode(keys)

    def decode(self, state: bytes) -> Callable[[int], None]:
        try:
            keys = msgspec.msgpack.decode(state, type=dict[str, int])
        except msgspec.MsgspecError as error:
            raise Corrupt(str(error)) from error

        def restore(index: int) -> None:
            self.keys = keys

        return restore


class Finished:
    """A background run that was done at once."""

    def __init__(self, run: Callable[[], bytes]) -> None:
        self._result: bytes | OSError
        try:
            self._result = run()
        except OSError as error:
            self._result = error

    def done(self) -> bool:
        return True

    def result(self) -> bytes:
        if isinstance(self._result, OSError):
            raise self._result
        return self._result
