"""A blob is visible only when it is whole and durable; what a crash leaves behind is cleared away."""

import asyncio
import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from consensus.state import Digest
from node.blobs.room import DiskFull, Limits
from node.blobs.store import BlobMissing, BlobStore
from node.blobs.writer import DigestMismatch

CONTENT = b"parquet" * 1000


def named(content: bytes) -> Digest:
    return Digest(hashlib.sha256(content).hexdigest())


def opened(directory: Path) -> BlobStore:
    store = BlobStore(directory)
    store.open()
    return store


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return opened(tmp_path / "blobs")


def incoming(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "blobs" / "incoming").iterdir()]


async def keep(store: BlobStore, content: bytes) -> Digest:
    async with store.begin() as writer:
        await writer.write(content)
        return (await writer.commit()).digest


async def test_a_written_blob_is_there_after_a_restart(store: BlobStore, tmp_path: Path) -> None:
    digest = await keep(store, CONTENT)
    for place in (store, opened(tmp_path / "blobs")):
        assert digest == named(CONTENT)
        assert place.digests() == {digest}
        assert place.size(digest) == len(CONTENT)
        assert place.path(digest).read_bytes() == CONTENT
        assert await place.verify(digest)


@given(st.lists(st.binary(max_size=50), max_size=6))
@settings(max_examples=25)
async def test_the_digest_does_not_depend_on_the_pieces(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    store = opened(tmp_path_factory.mktemp("pieces"))
    async with store.begin() as writer:
        for piece in pieces:
            await writer.write(piece)
        stored = await writer.commit()
    assert (stored.digest, stored.bytes) == (named(b"".join(pieces)), sum(map(len, pieces)))


async def test_nothing_is_visible_before_commit_and_nothing_stays_without(store: BlobStore, tmp_path: Path) -> None:
    async with store.begin() as writer:
        await writer.write(CONTENT)
        assert store.digests() == frozenset()
    assert incoming(tmp_path) == []
    assert opened(tmp_path / "blobs").digests() == frozenset()


async def test_a_wrong_digest_is_refused_and_cleared_away(store: BlobStore, tmp_path: Path) -> None:
    wrong = named(b"something else")
    async with store.begin(name=wrong) as writer:
        await writer.write(CONTENT)
        with pytest.raises(DigestMismatch, match=named(CONTENT)):
            await writer.commit(expected=wrong)
    assert not store.has(wrong)
    assert incoming(tmp_path) == []


async def test_a_named_partial_file_is_taken_up_again(store: BlobStore) -> None:
    digest = named(CONTENT)
    async with store.begin(name=digest) as writer:
        await writer.write(CONTENT[:3000])
    async with store.begin(name=digest) as writer:
        assert writer.size == 3000
        await writer.write(CONTENT[3000:])
        await writer.commit(expected=digest)
    assert store.path(digest).read_bytes() == CONTENT


async def test_a_sender_that_starts_over_makes_the_writer_start_over(store: BlobStore) -> None:
    async with store.begin() as writer:
        await writer.write(b"half of somethi")
        await writer.restart()
        await writer.write(CONTENT)
        assert (await writer.commit(expected=named(CONTENT))).bytes == len(CONTENT)


CRASHES = {
    "while writing": "writer._write(content); die()",
    "before the sync": "writer._write(content); os.fsync = die; await writer.commit()",
    "before the rename": "writer._write(content); pathlib.Path.replace = die; await writer.commit()",
}


@pytest.mark.parametrize("point", CRASHES)
def test_a_crash_leaves_no_half_blob(tmp_path: Path, point: str) -> None:
    script = f"""
import asyncio, os, pathlib, signal
from node.blobs.store import BlobStore
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
async def main():
    content = b"parquet" * 1000
    store = BlobStore(pathlib.Path({str(tmp_path / "blobs")!r}))
    store.open()
    async with store.begin() as writer:
        {point and CRASHES[point]}
asyncio.run(main())
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert len(incoming(tmp_path)) == 1
    assert opened(tmp_path / "blobs").digests() == frozenset()
    assert incoming(tmp_path) == []


async def test_after_the_rename_a_crash_keeps_the_blob(tmp_path: Path) -> None:
    script = f"""
import asyncio, os, pathlib, signal, node.blobs.store
def die(*_): os.kill(os.getpid(), signal.SIGKILL)
async def main():
    store = node.blobs.store.BlobStore(pathlib.Path({str(tmp_path / "blobs")!r}))
    store.open()
    async with store.begin() as writer:
        writer._write(b"parquet" * 1000)
        rename = pathlib.Path.replace
        pathlib.Path.replace = lambda *names: (rename(*names), die())
        await writer.commit()
asyncio.run(main())
"""
    crashed = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    assert await crashed.wait() == -9
    store = opened(tmp_path / "blobs")
    assert await store.verify(named(CONTENT))


@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
async def test_a_corrupt_blob_is_found_and_removed(store: BlobStore, damage: str) -> None:
    digest = await keep(store, CONTENT)
    assert await store.verify(digest)
    path = store.path(digest)
    match damage:
        case "flip":
            path.write_bytes(CONTENT[:-1] + b"!")
        case "cut":
            os.truncate(path, 100)
        case "gone":
            path.unlink()
    assert not await store.verify(digest)
    assert not store.has(digest)
    assert not path.exists()
    with pytest.raises(BlobMissing):
        store.path(digest)


async def test_rot_that_leaves_size_and_time_alone_is_found_when_asked_again(store: BlobStore) -> None:
    digest = await keep(store, CONTENT)
    path = store.path(digest)
    assert await store.verify(digest)
    times = path.stat()
    path.write_bytes(CONTENT[:-1] + b"!")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not await store.verify(digest, again=True)


async def test_a_finished_file_is_adopted(store: BlobStore, tmp_path: Path) -> None:
    path = tmp_path / "part-0.parquet"
    path.write_bytes(CONTENT)
    stored = await store.adopt(path)
    assert (stored.digest, stored.bytes) == (named(CONTENT), len(CONTENT))
    assert not path.exists()
    assert await store.verify(stored.digest)
    await store.remove(stored.digest)
    assert opened(tmp_path / "blobs").digests() == frozenset()


async def test_a_full_disk_is_said_and_keeps_nothing(
    store: BlobStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    async with store.begin() as writer:
        monkeypatch.setattr(os, "write", no_room)
        with pytest.raises(DiskFull, match="No space left"):
            await writer.write(CONTENT * 200)
    monkeypatch.undo()
    assert incoming(tmp_path) == []
    store.room.limits = Limits(reserve=1 << 62)
    with pytest.raises(DiskFull, match="no room for 1 bytes"):
        store.room.check(1)


async def test_a_blob_that_comes_anew_while_it_is_dropped_stays(store: BlobStore) -> None:
    """Its removal was decided before it came again: whichever of the two is first, what is told is there is there."""
    digest = await keep(store, CONTENT)
    store.take_touched()
    for _ in range(20):
        dropped = asyncio.create_task(store.remove_if(digest, lambda: digest not in store.touched))
        again = asyncio.create_task(keep(store, CONTENT))
        await asyncio.gather(dropped, again)
        assert store.has(digest)
        assert store.path(digest).read_bytes() == CONTENT
        store.take_touched()
    assert await store.remove_if(digest, lambda: digest not in store.touched)
    assert not store.has(digest)


async def test_partial_files_that_nobody_takes_up_go(store: BlobStore, tmp_path: Path) -> None:
    for name in (named(b"old"), named(b"young")):
        async with store.begin(name=name) as writer:
            await writer.write(b"half")
    os.utime(tmp_path / "blobs" / "incoming" / named(b"old"), (1, 1))
    await store.clear_partial(600.0)
    assert incoming(tmp_path) == [named(b"young")]
