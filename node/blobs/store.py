"""The content-addressed store of one node: files named by the SHA-256 of their bytes, durable before they are visible.

Layout: `DIR/ab/<64 hexadecimal digits>`, partial files in `DIR/incoming`. All of it is on one file system.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from consensus.state import Digest
from node.blobs.room import BlobError, Limits, Room
from node.blobs.writer import BlobWriter, StoredBlob, digest_and_sync
from node.files import fsync_folder
from parvada.identifiers import is_digest


class BlobMissing(BlobError):
    """The store does not hold this blob."""


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

    def begin(self, name: str | None = None) -> BlobWriter:
        """A writer for a new blob. With a `name` its partial file outlives a broken transfer and is taken up again."""
        path = self._incoming / (name or f"new-{os.urandom(8).hex()}")
        return BlobWriter(path, keep=name is not None, admit=self._admit)

    async def adopt(self, path: Path) -> StoredBlob:
        """Move a finished file of the same file system into the store. Raises DiskFull, OSError."""
        digest, size = await asyncio.to_thread(digest_and_sync, path)
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
