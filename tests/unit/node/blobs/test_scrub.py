"""Silent corruption: found by reading everything again, slowly, and mended from another holder."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consensus.state import Digest
from node.blobs.scrub import MAX_BYTES_PER_SECOND, MIN_PASS_SECONDS, Scrubber
from node.blobs.store import BlobStore
from node.blobs.writer import CHUNK_BYTES
from tests.support.clock import Clock
from tests.unit.node.cluster import flock
from tests.unit.node.wait import eventually

CONTENT = b"column\n1\n" * 1000


@contextlib.asynccontextmanager
async def scrubbing(
    store: BlobStore, period: float = MIN_PASS_SECONDS, rate: float = MAX_BYTES_PER_SECOND
) -> AsyncIterator[tuple[Scrubber, list[int]]]:
    found: list[int] = []
    scrubber = Scrubber(store, period, lambda: found.append(1), rate)
    task = asyncio.create_task(scrubber.run())
    try:
        yield scrubber, found
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.wait([task])


async def keep(store: BlobStore, content: bytes) -> Digest:
    async with store.begin() as writer:
        await writer.write(content)
        return (await writer.commit()).digest


def rot(path: Path, position: int) -> None:
    """As a disk does it: another byte, the same size, and no newer time."""
    times, content = path.stat(), bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    made = BlobStore(tmp_path / "blobs")
    made.open()
    return made


@pytest.mark.parametrize("size", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1])
async def test_a_flipped_byte_anywhere_is_found_and_nothing_else_is_touched(
    store: BlobStore, clock: Clock, size: int
) -> None:
    content = os.urandom(size)
    bad, sound = await keep(store, content), [await keep(store, b"sound %d" % number) for number in range(5)]
    empty = await keep(store, b"")
    assert await store.verify(bad), "it was fine once, and `verify` remembers that"
    rot(store.path(bad), size - 1)
    async with scrubbing(store) as (scrubber, found):
        await clock.until(lambda: not store.has(bad))
        passes = scrubber.passes
        await clock.until(lambda: scrubber.passes >= passes + 2)
    assert found == [1]
    assert store.digests() == {*sound, empty}


@pytest.mark.parametrize("damage", ["cut", "longer", "gone"])
async def test_a_file_of_another_size_or_none_is_found_too(store: BlobStore, clock: Clock, damage: str) -> None:
    digest = await keep(store, CONTENT)
    match damage:
        case "cut":
            os.truncate(store.path(digest), 100)
        case "longer":
            store.path(digest).write_bytes(CONTENT + b"!")
        case "gone":
            store.path(digest).unlink()
    async with scrubbing(store) as (_, found):
        await clock.until(lambda: bool(found))
    assert not store.has(digest)


async def test_blobs_that_come_and_go_under_it_do_no_harm(store: BlobStore, clock: Clock) -> None:
    async with scrubbing(store) as (scrubber, found):
        for number in range(50):
            digest = await keep(store, b"%d" % number)
            await clock.advance(MIN_PASS_SECONDS / 10)
            if number % 2:
                await store.remove(digest)
        passes = scrubber.passes
        await clock.until(lambda: scrubber.passes > passes)
    assert found == []
    assert len(store.digests()) == 25


async def test_the_rate_is_bounded_and_a_pass_takes_its_time(store: BlobStore, clock: Clock) -> None:
    for number in range(4):
        await keep(store, bytes([number]) * CHUNK_BYTES)
    async with scrubbing(store, rate=CHUNK_BYTES / 2) as (scrubber, _):  # would like to read all in a second
        began = clock()
        await clock.until(lambda: scrubber.passes >= 1)
        assert clock() - began >= 8.0
    async with scrubbing(store, period=3600.0) as (scrubber, _):
        began = clock()
        await clock.until(lambda: scrubber.passes >= 1, step=60.0)
        assert clock() - began >= 3600.0, "an even pace, not a burst"


async def test_a_corrupt_copy_is_mended_from_another_holder(tmp_path: Path, clock: Clock) -> None:
    async with flock(tmp_path, 3) as three:
        three.replicate()
        digest = await three.first.keep(CONTENT)
        await three.add_dataset(digest, await three.distributors[three.first.id].store_durably(digest))
        await eventually(lambda: three.holders(digest) == three.keepers(digest) == {node.id for node in three.nodes})
        victim = three.nodes[2]
        path = victim.blobs.path(digest)
        rot(path, 4321)
        async with scrubbing(victim.blobs) as (_, found):
            victim_replicator = three.replicators[victim.id]
            await clock.until(lambda: bool(found))
            victim_replicator.poke()
            await eventually(lambda: path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == digest)
            await eventually(lambda: three.holders(digest) == {node.id for node in three.nodes})
        assert found == [1]
