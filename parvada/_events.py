"""Server-Sent Events without I/O: bytes in, `EventRecord`s out, and the place to resume from."""

import msgspec

from parvada.errors import BadAnswer
from parvada.schema import EventRecord

LONGEST_EVENT_BYTES = 1 << 20
STREAM_SILENCE = 45.0
"""Seconds without a byte (nodes send keepalive comments) after which a stream counts as dead."""
CAUGHT_UP_SECONDS = 0.5
"""Silence after which a reader who does not follow has seen what there is."""


class EventStream:
    """Parses one subscription over as many connections as it takes. `last` is the id to resume after."""

    def __init__(self, since: int | None) -> None:
        self.last = since
        self._buffer = b""

    def reconnected(self) -> None:
        """Forget the torn event of a connection that ended."""
        self._buffer = b""

    def feed(self, chunk: bytes) -> list[EventRecord]:
        """The events completed by these bytes; comments and events already seen are left out."""
        self._buffer += chunk.replace(b"\r\n", b"\n")
        *complete, self._buffer = self._buffer.split(b"\n\n")
        if len(self._buffer) > LONGEST_EVENT_BYTES:
            raise BadAnswer("an event of more than 1 MiB: this is not Parvada's event stream")
        return [event for block in complete if (event := self._read(block)) is not None]

    def _read(self, block: bytes) -> EventRecord | None:
        fields: dict[bytes, list[bytes]] = {}
        for line in block.split(b"\n"):
            name, _, value = line.partition(b":")
            if name:
                fields.setdefault(name, []).append(value.removeprefix(b" "))
        if b"data" not in fields:
            return None
        return self._decode(fields.get(b"event", [b""])[-1], b"\n".join(fields[b"data"]))

    def _decode(self, kind: bytes, data: bytes) -> EventRecord | None:
        try:
            event = msgspec.json.decode(data, type=EventRecord)
        except msgspec.MsgspecError as exc:
            if kind == b"resync":
                return None
            raise BadAnswer(f"an event that is not Parvada's: {exc}") from exc
        self.last = max(event.index, self.last or 0)
        return event
