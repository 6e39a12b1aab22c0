"""Reads every blob of this node again, slowly and for ever: a disk may change bytes and say nothing.

A copy that is not what its digest names is removed at once, and the replicator fetches another.
"""

import asyncio
import bisect
import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path

from consensus.state import Digest
from node import logs
from node.blobs.store import BlobMissing, BlobStore
from node.blobs.writer import CHUNK_BYTES

log = logs.get("node.blobs.scrub")

MAX_BYTES_PER_SECOND = 32 * 1024 * 1024
"""Rather a longer pass than a disk that is kept from its work."""
MIN_PASS_SECONDS = 1.0


class Scrubber:
    """`run` it as a root task. A pass takes `period` seconds, whatever there is to read, or as long as the bound on
    the rate (bytes a second) needs. `on_corrupt` is called when a copy was found corrupt and is gone."""

    def __init__(
        self, blobs: BlobStore, period: float, on_corrupt: Callable[[], None], rate: float = MAX_BYTES_PER_SECOND
    ) -> None:
        self._blobs, self._on_corrupt, self._rate = blobs, on_corrupt, rate
        self._period = max(period, MIN_PASS_SECONDS)
        self.passes = 0
        """Full passes since the start."""

    async def run(self) -> None:
        """Until cancelled. Begins anywhere: a node that restarts often would else never come to the last ones."""
        begin = Digest(f"{random.getrandbits(256):064x}")
        while True:
            await self._pass(begin)
            self.passes += 1

    async def _pass(self, begin: Digest) -> None:
        ordered = sorted(self._blobs.digests())
        start = bisect.bisect_left(ordered, begin)
        total = sum(self._size(digest) for digest in ordered)
        left = self._period
        for digest in [*ordered[start:], *ordered[:start]]:
            share = self._period * self._size(digest) / max(total, 1)
            left -= share
            await self._check(digest, share)
        await asyncio.sleep(max(left, 0.0))  # all of it when there is nothing to read

    def _size(self, digest: Digest) -> int:
        """0 for one that has gone meanwhile."""
        return self._blobs.size(digest) if self._blobs.has(digest) else 0

    async def _check(self, digest: Digest, seconds: float) -> None:
        """One blob, spread over `seconds`."""
        if not self._blobs.has(digest):
            await asyncio.sleep(seconds)
            return
        found = await _digest(self._blobs.path(digest), seconds, self._size(digest), self._rate)
        if found == digest or not self._blobs.has(digest):
            return
        try:
            sound = await self._blobs.verify(digest, again=True)  # it may have been replaced in the meantime
        except BlobMissing:
            return
        if not sound:
            log.error("blob.corrupt", digest=digest, reporter="scrub")
            self._on_corrupt()


async def _digest(path: Path, seconds: float, size: int, rate: float) -> str:
    """The SHA-256 of a file of `size` bytes, read at an even pace; empty if it cannot be read or has another size."""
    pieces = max(1, -(-size // CHUNK_BYTES))
    pause = max(seconds / pieces, min(size, CHUNK_BYTES) / rate)
    found = hashlib.sha256()
    try:
        for number in range(pieces):
            await asyncio.sleep(pause)
            await asyncio.to_thread(_add_piece, found, path, number * CHUNK_BYTES, size)
    except OSError as error:
        log.warning("scrub.unreadable", path=str(path), reason=str(error))
        return ""
    return found.hexdigest()


def _add_piece(found: "hashlib._Hash", path: Path, position: int, size: int) -> None:
    """Not from the page cache where the kernel can help it: the disk is what is in doubt. Raises OSError."""
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != size:
            raise OSError(f"it should have {size} bytes")
        os.posix_fadvise(file.fileno(), position, CHUNK_BYTES, os.POSIX_FADV_DONTNEED)
        found.update(os.pread(file.fileno(), CHUNK_BYTES, position))
