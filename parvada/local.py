"""The wire of the agent's Unix socket, as the agent and its child processes both import it: paths, headers, frames, and
what is asked and answered. Ids are plain texts here: the lowest package knows no others.

The views, reports and commands that travel in it belong to who makes them: `serving.view`, `serving.stats`,
`training.ports`, `consensus.codec`.
"""

from typing import Final, Protocol

import msgspec

FIRST_SEGMENT: Final = "local"
"""Of the paths that are for the agent's children alone; all others are the client API, which fronts pass on."""
VIEW: Final = "/local/view"
"""A stream of frames, each one a whole view of what is served."""
LOG: Final = "/local/log"
"""A stream of frames: a snapshot, then every entry. It ends when the reader lags: start anew."""
PROPOSE: Final = "/local/propose"
BLOBS: Final = "/local/blobs"
STATS: Final = "/local/stats"
TRAINER: Final = "/local/trainer"
LIVE: Final = "/local/live"

FRONT_HEADER: Final = "x-parvada-front"
"""On what a front passes on for a client: it never reaches the calls of this module."""
COMMAND_HEADER: Final = "x-command-id"
"""Proposed again under the same id, a command has one effect."""
ACTOR_HEADER: Final = "x-actor"

MAX_VIEW_BYTES: Final = 64 * 1024 * 1024
MAX_LOG_BYTES: Final = 1 << 30
_HEAD_BYTES: Final = 4
_INDEX_BYTES: Final = 8
_SNAPSHOT, _ENTRY = b"\x00", b"\x01"


class WireError(ValueError):
    """The other end said something that cannot be."""


# ---------------------------------------------------------------- what is asked and answered
class Proposed(msgspec.Struct, frozen=True):
    """The answer to `PROPOSE`. `value` is the outcome's own JSON object."""

    index: int
    value: msgspec.Raw

    def values(self) -> dict[str, int | bool | str | None]:
        return msgspec.json.decode(self.value, type=dict[str, int | bool | str | None])


class LocalBlob(msgspec.Struct, frozen=True):
    """The answer to GET of a blob: where its file is on this machine."""

    path: str
    bytes: int


class AdoptRequest(msgspec.Struct, frozen=True):
    """The body of POST to `BLOBS`: a file in the agent's folder for such, which becomes a blob."""

    path: str


class StoredBlob(msgspec.Struct, frozen=True):
    """The answer to POST to `BLOBS`: durable on these nodes."""

    digest: str
    bytes: int
    holders: tuple[str, ...]


def blob_path(digest: str) -> str:
    return f"{BLOBS}/{digest}"


# ---------------------------------------------------------------- frames
class StateFrame(msgspec.Struct, frozen=True):
    """The whole state, as `consensus.codec` writes it."""

    state: bytes


class EntryFrame(msgspec.Struct, frozen=True):
    index: int
    entry: bytes


class Stream(Protocol):
    """An `asyncio.StreamReader`, or aiohttp's. Worker processes import this module and stay small without asyncio: its
    IncompleteReadError is an EOFError here."""

    async def readexactly(self, n: int) -> bytes: ...


def frame(body: bytes) -> bytes:
    """4-byte big-endian length, then the body."""
    return len(body).to_bytes(_HEAD_BYTES, "big") + body


async def read_frame(stream: Stream, most: int) -> bytes | None:
    """The body of the next frame, None at the end of the stream. Raises WireError: it is empty, above `most` bytes, or
    the stream ended within it."""
    try:
        head = await stream.readexactly(_HEAD_BYTES)
    except EOFError as error:
        if getattr(error, "partial", b""):
            raise WireError("the stream ended within a frame") from error
        return None
    length = int.from_bytes(head, "big")
    if not 1 <= length <= most:
        raise WireError(f"a frame of {length} bytes; 1 to {most} are possible")
    try:
        return await stream.readexactly(length)
    except EOFError as error:
        raise WireError("the stream ended within a frame") from error


def log_frame(item: StateFrame | EntryFrame) -> bytes:
    if isinstance(item, StateFrame):
        return frame(_SNAPSHOT + item.state)
    return frame(_ENTRY + item.index.to_bytes(_INDEX_BYTES, "big") + item.entry)


def read_log_frame(body: bytes) -> StateFrame | EntryFrame:
    """Raises WireError."""
    kind, rest = body[:1], body[1:]
    if kind == _SNAPSHOT:
        return StateFrame(rest)
    if kind == _ENTRY and len(rest) > _INDEX_BYTES:
        return EntryFrame(int.from_bytes(rest[:_INDEX_BYTES], "big"), rest[_INDEX_BYTES:])
    raise WireError(f"a frame of the log with kind {kind!r} and {len(body)} bytes")
