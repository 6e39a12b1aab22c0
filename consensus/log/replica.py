"""The cluster's state as the log's state machine: decodes entries, applies the rules, keeps what readers must hear."""

import logging
from collections.abc import Callable

import msgspec

from consensus.codec import CodecError, decode_entry, decode_foreign, decode_state, encode_state, level_of_state
from consensus.core.disk import Corrupt
from consensus.levels import LEVEL, check
from consensus.messages import Entry, Event
from consensus.rules.machine import apply
from consensus.state import ClusterState

log = logging.getLogger(__name__)


class Advance(msgspec.Struct, frozen=True):
    """What was applied since the last look. After a snapshot `restored` is set and the entries start behind it."""

    state: ClusterState
    entries: tuple[tuple[int, Entry], ...]
    events: tuple[Event, ...]
    restored: bool


class Replica:
    """Belongs to the log's thread; the states that it hands out are values. What it is given raises TooNew once the
    level in force is above `level`: the node must stop before it applies what it does not understand."""

    def __init__(self, initial: ClusterState, level: int = LEVEL) -> None:
        self.state = initial
        self._level = level
        self._entries: list[tuple[int, Entry]] = []
        self._events: list[Event] = []
        self._restored = False

    def apply(self, index: int, command: bytes) -> None:
        try:
            entry = self.read(command)
        except CodecError as error:
            # Every replica of this release decides alike: the entry changes nothing.
            log.error("log.undecodable_entry index=%d error=%s", index, error)  # noqa: TRY400  # no traceback needed
            self.state = msgspec.structs.replace(self.state, index=index)
            return
        applied = apply(self.state, index, entry)
        self.state = applied.state
        check(self._level, self.state.level)
        self._entries.append((index, entry))
        self._events.extend(applied.events)

    def read(self, command: bytes) -> Entry:
        """An entry above the level in force is refused by all releases alike, known or not. Raises CodecError."""
        try:
            return self.known(command)
        except CodecError:
            foreign = decode_foreign(command, self._level)
            if foreign.level <= self.state.level:
                raise
            return foreign

    def known(self, command: bytes) -> Entry:
        """An entry that this release understands. Raises CodecError."""
        return decode_entry(command)

    def freeze(self) -> Callable[[], bytes]:
        state = self.state
        return lambda: encode_state(state)

    def decode(self, state: bytes) -> Callable[[int], None]:
        try:
            check(self._level, level_of_state(state))
            decoded = decode_state(state)
        except CodecError as error:
            raise Corrupt(f"snapshot: {error}") from error

        def restore(index: int) -> None:
            self.state = msgspec.structs.replace(decoded, index=index)
            self._entries, self._events, self._restored = [], [], True

        return restore

    def take(self) -> Advance | None:
        """What is new, None if nothing is."""
        if not self._entries and not self._restored:
            return None
        advance = Advance(self.state, tuple(self._entries), tuple(self._events), self._restored)
        self._entries, self._events, self._restored = [], [], False
        return advance
