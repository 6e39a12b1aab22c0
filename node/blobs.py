"""The content-addressed store of one node: files named by the SHA-256 of their bytes, durable before they are visible.

Layout: `DIR/ab/<64 hexadecimal digits>`, partial files in `DIR/incoming`. All of it is on one file system.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Self

import msgspec

from consensus.state import Digest
from node.files import fsync_folder
from node.room import BlobError, DiskFull, Limits, Room

__all__ = ["BlobError", "BlobMissing", "BlobStore", "BlobWriter", "DigestMismatch", "DiskFull", "StoredBlob"]

CHUNK_BYTES = 1024 * 1024
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class BlobMissing(BlobError):
    """The store does not hold this blob."""


class DigestMismatch(BlobError):
    """The bytes are not those that the digest names. The partial file is gone."""


class StoredBlob(msgspec.Struct, frozen=True):
    digest: Digest
    bytes: int


class BlobStore:
    """Blobs on this node's disk. Methods that touch the disk for long run in a thread; the rest look into memory."""

    def __init__(self, directory: Path, limits: Limits | None = None) -> None:
        self._directory = directory
        self.room = Room(directory, limits or Limits(), self.stored_bytes)
        self._moving = asyncio.Lock()
        """Held while a file comes or goes by its name, so that neither undoes the other."""
        self._incoming = directory / "incoming"
        self._sizes: dict[Digest, int] = {}
        self._verified: dict[Digest, tuple[int, int]] = {}
        self.touched: set[Digest] = set()
        """Came or was touched since the replicator last took note."""

    def open(self) -> None:
        """Read what is there and clear away what a crash left half written. Call before all else; blocks."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(mode=0o700)
        fsync_folder(self._directory)
        self._sizes = {
            Digest(path.name): path.stat().st_size
            for path in self._directory.glob("[0-9a-f][0-9a-f]/*")
            if is_digest(path.name)
        }

    def has(self, digest: Digest) -> bool:
        return digest in self._sizes

    def digests(self) -> frozenset[Digest]:
        return frozenset(self._sizes)

    def stored_bytes(self) -> int:
        """Of all blobs together."""
        return sum(self._sizes.values())

    def touch(self, digest: Digest) -> None:
        """Somebody relies on the blob from now on, though no fact may refer to it yet."""
        self.touched.add(digest)

    def take_touched(self) -> frozenset[Digest]:
        """What was touched since the last call."""
        taken, self.touched = frozenset(self.touched), set()
        return taken

    def size(self, digest: Digest) -> int:
        """Bytes. Raises BlobMissing."""
        try:
            return self._sizes[digest]
        except KeyError:
            raise BlobMissing(f"no blob {digest} on this node") from None

    def path(self, digest: Digest) -> Path:
        """Where the blob is: read only. Raises BlobMissing."""
        self.size(digest)
        return self._place(digest)

    def begin(self, name: str | None = None) -> "BlobWriter":
        """A writer for a new blob. With a `name` its partial file outlives a broken transfer and is taken up again."""
        path = self._incoming / (name or f"new-{os.urandom(8).hex()}")
        return BlobWriter(path, keep=name is not None, admit=self._admit)

    async def adopt(self, path: Path) -> StoredBlob:
        """Move a finished file of the same file system into the store. Raises DiskFull, OSError."""
        digest, size = await asyncio.to_thread(_digest_and_sync, path)
        return await self._admit(path, digest, size)

    async def remove(self, digest: Digest) -> None:
        """Forget the blob; nothing happens if it is not there."""
        await self.remove_if(digest, lambda: True)

    async def remove_if(self, digest: Digest, needless: Callable[[], bool]) -> bool:
        """Forget the blob if it still is `needless` when its turn comes: it may be arriving anew just now."""
        async with self._moving:
            if digest not in self._sizes or not needless():
                return False
            del self._sizes[digest]
            self._verified.pop(digest, None)
            await asyncio.to_thread(self._unlink, digest)
            return True

    async def clear_partial(self, age: float) -> None:
        """Remove what broken transfers left if nobody has taken it up for `age` seconds."""
        await asyncio.to_thread(_remove_older, self._incoming, time.time() - age)

    async def complete(self, digest: Digest) -> bool:
        """Whether the file has its size: a cheap check before it is sent. Raises BlobMissing."""
        stamp = await asyncio.to_thread(_stamp, self.path(digest))
        return stamp is not None and stamp[1] == self.size(digest)

    async def verify(self, digest: Digest, *, again: bool = False) -> bool:
        """Whether the bytes on disk are still those that the digest names. A file whose size and time have not
        changed since is not read twice, unless `again`. A corrupt blob is removed: then another holder's is fetched.

        Raises:
            BlobMissing: the store does not hold it.
        """
        path = self.path(digest)
        stamp = await asyncio.to_thread(_stamp, path)
        if stamp is not None and self._verified.get(digest) == stamp and not again:
            return True
        if stamp is not None and await asyncio.to_thread(_digest, path) == digest:
            self._verified[digest] = stamp
            return True
        await self.remove(digest)
        return False

    async def _admit(self, path: Path, digest: Digest, size: int) -> StoredBlob:
        async with self._moving:
            await asyncio.to_thread(self._rename, path, digest)
            self._sizes[digest] = size
            self._verified.pop(digest, None)
            self.touch(digest)
        return StoredBlob(digest, size)

    def _rename(self, path: Path, digest: Digest) -> None:
        """`path` is complete and synced. Only the rename makes it a blob."""
        place = self._place(digest)
        if not place.parent.exists():
            place.parent.mkdir(mode=0o700, exist_ok=True)
            fsync_folder(self._directory)
        path.replace(place)
        fsync_folder(place.parent)

    def _unlink(self, digest: Digest) -> None:
        place = self._place(digest)
        place.unlink(missing_ok=True)
        fsync_folder(place.parent)

    def _place(self, digest: Digest) -> Path:
        return self._directory / digest[:2] / digest


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


def is_digest(text: str) -> bool:
    return len(text) == 64 and not set(text) - set("0123456789abcdef")


def _remove_older(folder: Path, oldest: float) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < oldest:
                path.unlink()


def _digest(path: Path) -> Digest | None:
    """None if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return Digest(hashlib.file_digest(file, "sha256").hexdigest())
    except OSError:
        return None


def _stamp(path: Path) -> tuple[int, int] | None:
    """Changes whenever the file is written to."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _digest_and_sync(path: Path) -> tuple[Digest, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        try:
            os.fsync(file.fileno())
        except OSError as error:
            raise _as_disk_full(error) from error
        return Digest(digest), file.tell()


def _as_disk_full(error: OSError) -> Exception:
    return DiskFull(f"no room for this blob: {error.strerror}") if error.errno in _DISK_FULL else error
