"""The journal keeps what was synced through crashes, tells a torn tail from corruption, and survives a full disk."""

import errno
import os
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from consensus.core.disk import Corrupt, LocalDisk
from consensus.core.journal import FILE, NEW_FILE, Journal, JournalWriteFailed, LogEntry
from tests.simulation.disk import Crash, SimDisk


def filled(disk: SimDisk | LocalDisk, count: int = 5) -> Journal:
    """Entries 1..count, each synced on its own, in term 3 with a vote for B."""
    journal = Journal(disk)
    journal.setCurrentTerm(3, "B")
    for index in range(1, count + 1):
        journal.add(f"command {index}".encode(), index, 3)
        journal.sync()
    return journal


def fill(path: Path) -> None:
    """Write until the filesystem is full. Raises OSError."""
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"f" * 4096)


def entries(journal: Journal) -> list[LogEntry]:
    return journal[:]


def test_what_was_synced_is_there_after_a_restart(tmp_path: Path) -> None:
    journal = filled(LocalDisk(tmp_path))
    journal.cut_from(4)
    journal.add(b"another", 4, 4)
    journal.setRaftCommitIndex(3)
    journal.onOneSecondTimer()
    journal.sync()
    again = Journal(LocalDisk(tmp_path))
    assert entries(again) == entries(journal)
    assert (again.getCurrentTerm(), again.getVotedForNodeId(), again.getRaftCommitIndex()) == (3, "B", 3)
    assert again.torn_bytes == 0


def test_nothing_unsynced_survives_a_power_loss() -> None:
    disk = SimDisk(random.Random(1))
    journal = filled(disk, 2)
    journal.add(b"not synced", 3, 3)
    disk.files = {name: bytearray(content) for name, content in disk.durable.items()}
    assert len(Journal(disk)) == 2


def test_a_tail_torn_at_any_byte_loses_only_the_last_batch() -> None:
    disk = SimDisk()
    journal = filled(disk, 3)
    before = journal.size
    journal.add(b"x" * 40, 4, 3)
    journal.add(b"y" * 40, 5, 3)
    journal.sync()
    whole = bytes(disk.files[FILE])
    for end in range(before, len(whole)):
        torn = SimDisk()
        torn.files[FILE] = bytearray(whole[:end])
        again = Journal(torn)
        # Either entry of the last batch may be cut: neither was acknowledged before the sync returned.
        assert len(again) in (3, 4)
        assert again.torn_bytes == end - again.size
        again.add(b"next", len(again) + 1, 4)
        again.sync()
        assert entries(Journal(torn))[-1][0] == b"next"


def test_a_flipped_bit_is_corruption_unless_it_could_be_a_torn_tail() -> None:
    disk = SimDisk()
    journal = filled(disk, 4)
    last_batch = journal.size
    journal.add(b"the last one", 5, 3)
    journal.sync()
    whole = bytes(disk.files[FILE])
    for position in range(len(whole)):
        damaged = SimDisk()
        damaged.files[FILE] = bytearray(whole)
        damaged.files[FILE][position] ^= 0x10
        if position < last_batch:
            with pytest.raises(Corrupt):
                Journal(damaged)
        else:
            assert len(Journal(damaged)) == 4


def test_pages_of_one_unsynced_batch_may_survive_out_of_order() -> None:
    """Power fails while a batch is written: its end is on disk, its beginning is not. That is no corruption."""
    disk = SimDisk()
    journal = filled(disk, 2)
    before = journal.size
    for index in (3, 4, 5):
        journal.add(b"z" * 100, index, 3)
    journal.sync()
    disk.files[FILE][before : before + 60] = bytes(60)
    assert len(Journal(disk)) == 2


def test_bytes_in_a_command_never_pass_for_a_record() -> None:
    disk = SimDisk()
    filled(disk, 3)
    forged = bytes(disk.files[FILE])
    other = SimDisk()
    journal = filled(other, 1)
    journal.add(forged, 2, 3)
    journal.sync()
    del other.files[FILE][-3:]
    assert len(Journal(other)) == 1


@pytest.mark.parametrize("content", [b"", b"PVRD", b"another format altogether", b"\0" * 64])
def test_a_file_that_is_no_journal_is_refused(content: bytes) -> None:
    disk = SimDisk()
    disk.files[FILE] = bytearray(content)
    with pytest.raises(Corrupt):
        Journal(disk)


def test_a_crash_at_any_point_of_a_compaction_loses_nothing() -> None:
    for operations in range(12):
        disk = SimDisk()
        journal = filled(disk, 6)
        expected = entries(journal)
        disk.crash_after = operations
        try:
            journal.compact(4)
        except Crash:
            pass
        else:
            disk.crash_after = None
            assert entries(Journal(disk)) == expected[3:]
            return
        disk.crash_after = None
        disk.power_loss()
        again = Journal(disk)
        assert entries(again) in (expected, expected[3:])
        assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (3, "B")
        assert NEW_FILE not in disk.files
    pytest.fail("the compaction never got to its end")


STEPS = ["add", "cut", "vote", "sync", "rebase", "compact"]


@given(seed=st.integers(0, 2**32), script=st.lists(st.sampled_from(STEPS), max_size=40))
@settings(deadline=None, max_examples=150)
def test_after_any_power_loss_the_log_is_at_least_what_was_synced(seed: int, script: list[str]) -> None:
    disk = SimDisk(random.Random(seed))
    journal = Journal(disk)
    journal.add(b"first", 1, 0)
    journal.sync()
    synced = (entries(journal), journal.getCurrentTerm())
    history = [synced]
    for step, what in enumerate(script):
        last = journal[-1][1]
        if what == "add":
            journal.add(f"{step}".encode(), last + 1, step)
        elif what == "cut" and len(journal) > 1:
            journal.cut_from(last)
        elif what == "vote":
            journal.setCurrentTerm(step, "A")
        elif what == "rebase":
            journal.rebase(last + 5, step)
        elif what == "compact":
            journal.compact(last)
            synced, history = (entries(journal), journal.getCurrentTerm()), []
        elif what == "sync":
            journal.sync()
            synced, history = (entries(journal), journal.getCurrentTerm()), []
        history.append((entries(journal), journal.getCurrentTerm()))
    disk.power_loss()
    again = Journal(disk)
    assert (entries(again), again.getCurrentTerm()) in [synced, *history]


def test_a_full_disk_keeps_what_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = filled(LocalDisk(tmp_path), 2)
    journal.add(b"a" * 1000, 3, 3)
    real = os.pwrite

    def full(handle: int, data: bytes, offset: int) -> int:
        real(handle, data[:7], offset)  # as a full disk does: a part still fits
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(JournalWriteFailed, match="No space left") as failure:
        journal.sync()
    assert not failure.value.permanent
    monkeypatch.setattr(os, "pwrite", real)
    journal.sync()
    assert entries(Journal(LocalDisk(tmp_path))) == entries(journal)


def test_after_a_failed_fsync_no_later_one_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = filled(LocalDisk(tmp_path), 1)
    journal.add(b"b", 2, 3)

    def broken(handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", broken)
        with pytest.raises(JournalWriteFailed) as failure:
            journal.sync()
        assert failure.value.permanent
    with pytest.raises(JournalWriteFailed):
        journal.sync()


def test_a_compaction_on_a_full_disk_changes_nothing() -> None:
    disk = SimDisk()
    journal = filled(disk, 4)
    before = entries(journal)
    disk.full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space"):
        journal.compact(3)
    assert entries(journal) == before
    disk.full = None
    journal.add(b"goes on", 5, 3)
    journal.sync()
    assert entries(Journal(disk)) == entries(journal)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_really_full_filesystem(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        journal = filled(LocalDisk(tmp_path), 2)
        filler = tmp_path / "filler"
        with pytest.raises(OSError, match="No space"):
            fill(filler)
        journal.add(b"c" * 20_000, 3, 3)
        with pytest.raises(JournalWriteFailed):
            journal.sync()
        filler.unlink()
        journal.sync()
        assert len(Journal(LocalDisk(tmp_path))) == 3
        journal.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
