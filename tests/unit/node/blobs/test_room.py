"""What may still be kept: the log's reserve and the quota hold, also for transfers at the same time."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from node.blobs.room import FULL_SECONDS, DiskFull, Limits, Purpose, Room


class Usage(NamedTuple):
    free: int


class Disk:
    """A disk and a clock of the test's own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.free, self.stored, self.now = free, 0, 0.0
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(self.free))

    def room(self, quota: int = 0, reserve: int = 0) -> Room:
        return Room(Path("/"), Limits(quota, reserve), lambda: self.stored, lambda: self.now)


def test_the_reserve_is_not_for_blobs(monkeypatch: pytest.MonkeyPatch) -> None:
    room = Disk(monkeypatch, free=1000).room(reserve=400)
    room.check(600)
    with pytest.raises(DiskFull, match="no room for 601 bytes: 600 bytes are free") as refused:
        room.check(601)
    assert (refused.value.need, refused.value.free) == (601, 600)


def test_the_quota_counts_what_is_stored_and_what_is_coming(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, free=10_000)
    room = disk.room(quota=1000)
    disk.stored = 500
    with room.claim(300):
        assert room.free_bytes() == 200
        with pytest.raises(DiskFull), room.claim(201):
            pass
    assert room.free_bytes() == 500
    disk.stored = 1200  # a quota that was lowered
    assert room.free_bytes() == 0


def test_what_a_transfer_has_written_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, free=1000)
    room = disk.room()
    with room.claim(600) as claim:
        assert room.free_bytes() == 400
        disk.free -= 500
        claim.wrote(500)
        assert room.free_bytes() == 400
        claim.wrote(200)  # more than was announced: the disk tells the rest
        assert claim.left == 0
    assert room.free_bytes() == 500


def test_files_that_do_not_stay_need_disk_not_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, free=5000)
    room = disk.room(quota=1000)
    with room.claim(4000, Purpose.MAKE):
        assert room.free_bytes() == 1000
    disk.stored = 1000
    with pytest.raises(DiskFull), room.claim(1, Purpose.MAKE):
        pass


def test_what_is_needed_here_now_may_pass_the_quota_and_take_half_of_the_reserve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = Disk(monkeypatch, free=1000)
    room = disk.room(quota=100, reserve=400)
    disk.stored = 100
    with room.claim(700, Purpose.USE), pytest.raises(DiskFull, match="no room for 101 bytes: 100 bytes are free"):
        room.check(101, Purpose.USE)
    disk.free, disk.stored = 300, 0
    assert room.full
    room.check(100, Purpose.USE)
    with pytest.raises(DiskFull):
        room.check(101, Purpose.USE)


def test_a_refusal_shows_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(monkeypatch, free=1000)
    room = disk.room()

    def full(free: int, after: float = 0.0) -> bool:
        disk.free, disk.now = free, disk.now + after
        return room.full

    assert not full(1000)
    with pytest.raises(DiskFull):
        room.check(2000)
    assert full(1000)
    assert not full(2000)  # what was refused has room now
    assert not full(1000, after=FULL_SECONDS)
    assert full(0)
