"""The closed set of messages between Raft peers, and their frames: length, format, cluster, msgpack body.

Decoding builds nothing but these structs, with every length and number bounded: a frame from the network can
be refused, never executed.
"""

import hashlib
import struct
from typing import Annotated

import msgspec
from msgspec import Meta

MAX_COMMAND = 1024 * 1024
"""Bytes of one encoded command."""
MAX_BATCH_ENTRIES = 4096
CHUNK_BYTES = 1024 * 1024
"""Bytes of a snapshot that travel in one message."""
MAX_BEACON = 64 * 1024
MAX_FRAME = 16 * 1024 * 1024
"""No honest frame is larger: a batch stops at the first command past 1 MiB. Bounds a connection's memory."""
MAX_SNAPSHOT = 1024 * 1024 * 1024

_FORMAT = 1
_LENGTH = struct.Struct(">I")
_CLUSTER_BYTES = 16
_PREFIX_BYTES = 1 + _CLUSTER_BYTES

Number = Annotated[int, Meta(ge=0, le=2**62)]
# One byte of command type comes before the command.
Command = Annotated[bytes, Meta(min_length=1, max_length=MAX_COMMAND + 64)]


class _Message(msgspec.Struct, frozen=True, tag=True, array_like=True):
    pass


class AppendEntries(_Message, frozen=True):
    """Leader to all. `entries` are (term, command) from index `previous_index + 1` on; none is a heartbeat."""

    term: Number
    commit_index: Number
    previous_index: Number
    previous_term: Number
    entries: Annotated[tuple[tuple[Number, Command], ...], Meta(max_length=MAX_BATCH_ENTRIES)]


class AppendReply(_Message, frozen=True):
    """`matched`: the log equals the leader's up to `index`. Else: send from `index` on; `previous` is that of the
    message refused, so that of many on their way only the one that counts is heeded. The term is that of the
    leadership that is answered: a late reply is never credited to another one."""

    term: Number
    matched: bool
    index: Number
    previous: Number = 0


class SnapshotChunk(_Message, frozen=True):
    """Part of the snapshot up to log entry `index`; empty `data` is a heartbeat that asks for the offset."""

    term: Number
    index: Number
    offset: Number
    total: Annotated[int, Meta(gt=0, le=MAX_SNAPSHOT)]
    data: Annotated[bytes, Meta(max_length=CHUNK_BYTES)]


class SnapshotReply(_Message, frozen=True):
    """`offset` is the next byte wanted, `answered` the end of the chunk that this answers."""

    term: Number
    index: Number
    offset: Number
    answered: Number


class PreVote(_Message, frozen=True):
    """Would you vote for me in `term`? Raises nobody's term."""

    round: Number
    term: Number
    last_index: Number
    last_term: Number


class PreVoteGranted(_Message, frozen=True):
    round: Number


class HigherTerm(_Message, frozen=True):
    """Answer to a message of an older term, or its sender would go on for ever."""

    term: Number


class RequestVote(_Message, frozen=True):
    term: Number
    last_index: Number
    last_term: Number


class VoteGranted(_Message, frozen=True):
    term: Number


class TimeoutNow(_Message, frozen=True):
    """The leader hands over: stand for election at once."""

    term: Number


class Propose(_Message, frozen=True):
    """A command on its way to the leader; its outcome is found by its id once applied."""

    command: Command


class Beacon(_Message, frozen=True):
    """A small opaque status of the sender; also keeps the connection alive."""

    payload: Annotated[bytes, Meta(max_length=MAX_BEACON)]


Message = (
    AppendEntries
    | AppendReply
    | SnapshotChunk
    | SnapshotReply
    | PreVote
    | PreVoteGranted
    | HigherTerm
    | RequestVote
    | VoteGranted
    | TimeoutNow
    | Propose
    | Beacon
)


class BadFrame(Exception):
    """The bytes are not a frame of this format and cluster. The connection is not worth keeping."""


class FrameCodec:
    """Encodes and decodes the frames of one cluster."""

    def __init__(self, cluster_id: str) -> None:
        cluster = hashlib.blake2b(cluster_id.encode(), digest_size=_CLUSTER_BYTES).digest()
        self._prefix = bytes([_FORMAT]) + cluster
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)

    def encode(self, message: Message) -> bytes:
        """One whole frame, length first."""
        body = self._encoder.encode(message)
        return _LENGTH.pack(_PREFIX_BYTES + len(body)) + self._prefix + body

    def decode(self, frame: bytes | memoryview) -> Message:
        """The message of one frame, given without its length. Raises BadFrame."""
        prefix = bytes(frame[:_PREFIX_BYTES])
        if prefix != self._prefix:
            raise BadFrame(_why_not(prefix, self._prefix))
        try:
            return self._decoder.decode(frame[_PREFIX_BYTES:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise BadFrame(f"not a message: {error}") from error


class FrameReader:
    """Cuts a stream of bytes into messages; holds at most one unfinished frame."""

    def __init__(self, codec: FrameCodec) -> None:
        self._codec = codec
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Message]:
        """The messages completed by `data`, in order. Raises BadFrame."""
        self._buffer += data
        messages: list[Message] = []
        position = 0
        while len(self._buffer) - position >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, position)
            if not _PREFIX_BYTES <= length <= MAX_FRAME:
                raise BadFrame(f"a frame of {length} bytes; {_PREFIX_BYTES} to {MAX_FRAME} are possible")
            start = position + _LENGTH.size
            if len(self._buffer) - start < length:
                break
            messages.append(self._codec.decode(bytes(self._buffer[start : start + length])))
            position = start + length
        del self._buffer[:position]
        return messages


def _why_not(prefix: bytes, expected: bytes) -> str:
    if prefix[:1] != expected[:1]:
        return f"format {prefix[:1].hex() or 'none'}, this node speaks {expected[:1].hex()}"
    return "the peer belongs to another cluster"
