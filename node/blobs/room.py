"""How much this node may still keep: the disk less what is reserved for the log, and the quota for blobs."""

import contextlib
import enum
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

MEGABYTE = 1024 * 1024
FULL_SECONDS = 15.0
"""After something was refused for want of room, the node counts as full for so long: a refusal is a moment, and would
show nowhere. Unless there is room for it sooner."""


class BlobError(Exception):
    """Root of the blob store's errors."""


class DiskFull(BlobError):
    """No room; nothing was kept. `need` and `free` in bytes, where they are known."""

    def __init__(self, message: str, need: int = 0, free: int = 0) -> None:
        super().__init__(message)
        self.need, self.free = need, free


class Limits(msgspec.Struct, frozen=True):
    """In bytes."""

    quota: int = 0
    """Of all blobs together; 0 = what the disk has."""
    reserve: int = 256 * MEGABYTE
    """Left free on the disk for the Raft log, which must not be the one to find it full: a journal and two snapshots of
    the size that they reach under load, and as much again for what is needed here now."""


class Purpose(enum.Enum):
    """What room is asked for."""

    KEEP = "keep"
    """A blob, for the cluster: within the quota, out of the reserve."""
    MAKE = "make"
    """A file that blobs are made from, and that does not stay: not counted by the quota, but no room for blobs is none
    for what they are made from."""
    USE = "use"
    """A blob that is needed here now (a model to predict with, data to train on): the quota does not bar it, and it may
    take half of the reserve. A node that is full must go on doing its work."""


class Claim:
    """Room that a transfer under way will need. `wrote` what is on the disk already, and so no longer free."""

    def __init__(self, size: int, kept: int) -> None:
        self.left, self.kept = size, kept

    def wrote(self, size: int) -> None:
        self.left = max(0, self.left - size)


class Room:
    """`stored` tells the bytes of all blobs. Transfers at the same time are not promised the same bytes twice."""

    def __init__(
        self, folder: Path, limits: Limits, stored: Callable[[], int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder, self.limits, self._stored, self._clock = folder, limits, stored, clock
        self._claims: set[Claim] = set()
        self._refused: tuple[float, int] | None = None

    def disk_bytes(self) -> int:
        """What files of any kind may still take."""
        return self._unclaimed(self.limits.reserve)

    def free_bytes(self) -> int:
        """What blobs may still take."""
        if not self.limits.quota:
            return self.disk_bytes()
        kept = self._stored() + sum(claim.kept for claim in self._claims)
        return max(0, min(self.disk_bytes(), self.limits.quota - kept))

    @property
    def full(self) -> bool:
        """Whether something was refused lately, or the next byte would be."""
        free = self.free_bytes()
        if free == 0 or self._refused is None:
            return free == 0
        at, need = self._refused
        return self._clock() - at < FULL_SECONDS and free < need

    def check(self, size: int, purpose: Purpose = Purpose.KEEP) -> None:
        """Raises DiskFull if `size` more bytes have no place."""
        free = self._free_for(purpose)
        if size > free:
            self.note_refusal(size)
            raise DiskFull(f"no room for {size} bytes: {free} bytes are free on this node", size, free)

    @contextlib.contextmanager
    def claim(self, size: int, purpose: Purpose = Purpose.KEEP) -> Iterator[Claim]:
        """Room for `size` bytes that are about to come. Raises DiskFull."""
        self.check(size, purpose)
        claim = Claim(size, 0 if purpose is Purpose.MAKE else size)
        self._claims.add(claim)
        try:
            yield claim
        finally:
            self._claims.discard(claim)

    def note_refusal(self, need: int) -> None:
        """Something was refused that needs so many bytes."""
        self._refused = (self._clock(), need)

    def _free_for(self, purpose: Purpose) -> int:
        match purpose:
            case Purpose.KEEP:
                return self.free_bytes()
            case Purpose.MAKE:
                return self.disk_bytes() if self.free_bytes() else 0
            case Purpose.USE:
                return self._unclaimed(self.limits.reserve // 2)

    def _unclaimed(self, reserve: int) -> int:
        free = shutil.disk_usage(self._folder).free - reserve
        return max(0, free - sum(claim.left for claim in self._claims))
