"""A snapshot of the state machine: its checked file, its making in the background, and its arrival in chunks."""

import struct
import zlib
from collections.abc import Callable
from typing import Protocol

import msgspec

from consensus.core.disk import Corrupt, Disk
from consensus.wire.frames import MAX_SNAPSHOT, SnapshotChunk

FILE = "snapshot"
MADE_FILE = "snapshot.made"
RECEIVED_FILE = "snapshot.received"

_MAGIC = b"PVRDSNP1"
_HEADER = struct.Struct("<8sQI")


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The state after the entry `index` of `term`, and the voters as of that entry."""

    index: int
    term: int
    voters: tuple[str, ...]
    state: bytes


class Pending(Protocol):
    """What a background run gives back; a `concurrent.futures.Future` is one."""

    def done(self) -> bool: ...

    def result(self) -> bytes: ...


Background = Callable[[Callable[[], bytes]], Pending]
"""Runs a function outside the log's loop (a thread), or at once (a simulator)."""


def encode_snapshot(snapshot: Snapshot) -> bytes:
    body = msgspec.msgpack.encode(snapshot)
    if len(body) + _HEADER.size > MAX_SNAPSHOT:
        raise ValueError(f"a snapshot of {len(body)} bytes exceeds {MAX_SNAPSHOT}")
    return _HEADER.pack(_MAGIC, len(body), zlib.crc32(body)) + body


def decode_snapshot(raw: bytes) -> Snapshot:
    """Raises Corrupt."""
    if len(raw) < _HEADER.size:
        raise Corrupt(f"snapshot of {len(raw)} bytes: cut short")
    magic, length, crc = _HEADER.unpack_from(raw)
    body = memoryview(raw)[_HEADER.size :]
    if magic != _MAGIC:
        raise Corrupt(f"snapshot begins with {magic!r} instead of {_MAGIC!r}")
    if len(body) != length or zlib.crc32(body) != crc:
        raise Corrupt(f"snapshot of {len(body)} bytes is damaged: {length} bytes and checksum {crc:08x} expected")
    try:
        return msgspec.msgpack.decode(body, type=Snapshot)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"snapshot: {error}") from error


class SnapshotStore:
    """The newest durable snapshot of this node. Only `prepare` may run in another thread."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._raw: bytes | None = None
        for leftover in (MADE_FILE, RECEIVED_FILE):
            disk.discard(leftover)

    def load(self) -> Snapshot | None:
        """Raises Corrupt: to go on with an empty state machine would forget acknowledged writes."""
        raw = self._disk.read(FILE)
        return None if raw is None else decode_snapshot(raw)

    def raw(self) -> bytes:
        """The file as it travels. Kept in memory until `release`."""
        if self._raw is None:
            self._raw = self._disk.read(FILE)
        if self._raw is None:
            raise Corrupt("the log was compacted, but there is no snapshot")
        return self._raw

    def release(self) -> None:
        self._raw = None

    def prepare(self, raw: bytes) -> None:
        """Write a snapshot that was made here; durable, but not yet in place."""
        self._disk.prepare(MADE_FILE, raw)

    def commit_made(self) -> None:
        self._disk.commit(MADE_FILE, FILE)
        self._raw = None

    def discard_made(self) -> None:
        self._disk.discard(MADE_FILE)

    def save_received(self, raw: bytes) -> None:
        self._disk.prepare(RECEIVED_FILE, raw)
        self._disk.commit(RECEIVED_FILE, FILE)
        self._raw = None


class Assembly:
    """Puts the chunks of one snapshot together on the receiving side."""

    def __init__(self) -> None:
        self._identity: tuple[int, int, int] | None = None
        self._buffer = bytearray()

    def add(self, chunk: SnapshotChunk) -> int:
        """Take the chunk if it is the next one; the offset wanted next. A snapshot of another leadership or index
        starts anew."""
        identity = (chunk.term, chunk.index, chunk.total)
        if identity != self._identity:
            self._identity, self._buffer = identity, bytearray()
        if chunk.offset == len(self._buffer) and len(self._buffer) + len(chunk.data) <= chunk.total:
            self._buffer += chunk.data
        return len(self._buffer)

    def take(self) -> bytes | None:
        """The whole snapshot once complete; the assembly is empty then."""
        if self._identity is None or len(self._buffer) < self._identity[2]:
            return None
        raw = bytes(self._buffer)
        self._identity, self._buffer = None, bytearray()
        return raw
