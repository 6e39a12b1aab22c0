"""The bytes of one new blob on their way into the store: hashed as they come, synced before they are handed over."""

import asyncio
import errno
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import msgspec

from consensus.state import Digest
from node.blobs.room import BlobError, DiskFull

CHUNK_BYTES = 1024 * 1024
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class DigestMismatch(BlobError):
    """The bytes are not those that the digest names. The partial file is gone."""


class StoredBlob(msgspec.Struct, frozen=True):
    digest: Digest
    bytes: int


class BlobWriter:
    """Takes the bytes of one new blob. Use as `async with store.begin() as writer`; what is not committed is gone."""

    def __init__(self, path: Path, *, keep: bool, admit: Callable[[Path, Digest, int], Awaitable[StoredBlob]]) -> None:
        self._path = path
        self._keep = keep
        self._admit = admit
        self._hash = hashlib.sha256()
        self._file = -1
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self.size = 0
        """Bytes on disk so far, those of an earlier attempt included."""

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._open)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._file < 0:
            return
        try:
            if self._keep:
                await self._flush()
        finally:
            os.close(self._file)
            self._file = -1
            if not self._keep:
                await asyncio.to_thread(self._path.unlink, missing_ok=True)

    async def write(self, chunk: bytes) -> None:
        """Append. Small pieces, as TLS brings them, are gathered: each trip to a thread costs. Raises DiskFull."""
        self._gathered.append(chunk)
        self._gathered_bytes += len(chunk)
        if self._gathered_bytes >= CHUNK_BYTES:
            await self._flush()

    async def restart(self) -> None:
        """Throw away what there is: the sender does not continue where we stopped."""
        self._gathered.clear()
        self._gathered_bytes = 0
        await asyncio.to_thread(self._truncate)

    async def commit(self, expected: Digest | None = None) -> StoredBlob:
        """Make it durable, then visible.

        Raises:
            DigestMismatch: it is not what `expected` names.
            DiskFull: no room.
        """
        await self._flush()
        digest = Digest(self._hash.hexdigest())
        if expected is not None and digest != expected:
            self._keep = False
            raise DigestMismatch(f"the {self.size} bytes received have the digest {digest}, not {expected}")
        await asyncio.to_thread(self._sync)
        stored = await self._admit(self._path, digest, self.size)
        os.close(self._file)
        self._file = -1
        return stored

    async def _flush(self) -> None:
        if self._gathered:
            chunk = b"".join(self._gathered)
            self._gathered.clear()
            self._gathered_bytes = 0
            await asyncio.to_thread(self._write, chunk)

    def _open(self) -> None:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        while chunk := os.read(self._file, CHUNK_BYTES):
            self._hash.update(chunk)
            self.size += len(chunk)

    def _write(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        view = memoryview(chunk)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self._keep = False
            raise _as_disk_full(error) from error
        self.size += len(chunk)

    def _truncate(self) -> None:
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self._hash, self.size = hashlib.sha256(), 0

    def _sync(self) -> None:
        try:
            os.fsync(self._file)
        except OSError as error:
            self._keep = False
            raise _as_disk_full(error) from error


def digest_and_sync(path: Path) -> tuple[Digest, int]:
    """Of a finished file: its digest and size, once it is durable. Raises DiskFull."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            os.fsync(file.fileno())
        except OSError as error:
            raise _as_disk_full(error) from error
        return Digest(digest), file.tell()


def _as_disk_full(error: OSError) -> Exception:
    return DiskFull(f"no room for this blob: {error.strerror}") if error.errno in _DISK_FULL else error
