"""Blobs between nodes: fetched from whoever holds them, taken up again where a transfer broke; put to their owners."""

import asyncio
import contextlib
import re
from collections.abc import Sequence

import aiohttp

from consensus.state import Digest, NodeId
from node import logs
from node.blobs.pace import Pace
from node.blobs.room import Purpose
from node.blobs.store import BlobStore
from node.blobs.writer import CHUNK_BYTES, BlobWriter, DigestMismatch
from node.peering.client import READ_SECONDS, PeerClient
from node.peering.words import PeerError, PeerRefused, PeerUnreachable

log = logs.get("node.blobs.transfer")

PARALLEL = 4
"""Transfers in each direction at once: the replicator takes two, so that people need not wait for it."""
PUT_SECONDS, SLOWEST_BYTES_PER_SECOND = 60.0, 256 * 1024
"""A peer that takes a blob more slowly than this is given up for another."""
SYNC_SECONDS = 60.0
"""A receiver answers after its fsync: how long that may take on a busy disk."""


class NoHolder(PeerError):
    """Nobody who is said to hold the blob could give it."""


class Transfer:
    """Moves blobs between the local store and peers. Every blob that arrives was checked against its digest."""

    def __init__(self, me: NodeId, blobs: BlobStore, peers: PeerClient) -> None:
        self._me = me
        self._blobs = blobs
        self._peers = peers
        self._in = asyncio.Semaphore(PARALLEL)
        self._out = asyncio.Semaphore(PARALLEL)
        self._fetching: dict[Digest, asyncio.Task[None]] = {}
        self._paced: dict[Digest, Pace] = {}

    async def fetch(self, digest: Digest, holders: Sequence[NodeId], pace: Pace | None = None) -> None:
        """Make the blob present here. Holders are tried in order; callers for the same blob share one transfer.

        A `pace` is for a copy that is only to be kept, within what this node may keep. Without one the blob is needed
        here now: it comes as fast as it can, and a node that is full makes room for it (`room.Purpose.USE`). A transfer
        that is shared keeps to its pace as long as all its callers have one.

        Raises:
            NoHolder: no holder gave it; the message has a reason for each.
            DiskFull: no room here.
        """
        if self._blobs.has(digest):
            return
        task = self._fetching.get(digest)
        if task is not None and task.done():  # it has just failed: with no room to keep what is now needed, say
            task = None
        if pace is None:
            self._paced.pop(digest, None)
        elif task is None:
            self._paced[digest] = pace
        if task is None:
            task = asyncio.create_task(self._fetch(digest, holders), name=f"fetch.{digest[:12]}")
            self._fetching[digest] = task
            task.add_done_callback(lambda done: self._forget(digest, done))
            task.add_done_callback(_retrieve)
        # A caller that goes away must not break the transfer for the others; it ends by its own deadlines.
        await asyncio.shield(task)

    async def put(self, node: NodeId, digest: Digest) -> None:
        """Give a peer a blob of ours. Returns when it has it durable.

        Raises:
            BlobMissing: it is not here.
            PeerError: the peer did not take it, or not in the time that a very slow one needs.
        """
        seconds = PUT_SECONDS + self._blobs.size(digest) / SLOWEST_BYTES_PER_SECOND
        async with self._out:  # the wait for a turn is not the peer's fault
            try:
                async with asyncio.timeout(seconds):
                    if not await self.holds(node, digest):
                        await self._send(node, digest)
            except TimeoutError as error:
                raise PeerUnreachable(f"node {node} has not taken the blob in {seconds:.0f} s") from error

    async def holds(self, node: NodeId, digest: Digest) -> bool:
        """Whether the peer says that it has the blob. Raises PeerError."""
        try:
            await self._peers.call(node, "HEAD", _path(digest))
        except PeerRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    async def stop(self) -> None:
        """Break off the transfers that are under way."""
        tasks = list(self._fetching.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget(self, digest: Digest, task: asyncio.Task[None]) -> None:
        if self._fetching.get(digest) is task:
            del self._fetching[digest]
            self._paced.pop(digest, None)

    async def _fetch(self, digest: Digest, holders: Sequence[NodeId]) -> None:
        failures = []
        async with self._in:
            for node in (holder for holder in holders if holder != self._me):
                try:
                    await self._receive(node, digest)
                except (PeerError, DigestMismatch) as error:
                    failures.append(f"{node}: {error}")
                    log.warning("blob.not_fetched", digest=digest, holder=node, reason=str(error))
                else:
                    log.info("blob.fetched", digest=digest, holder=node, bytes=self._blobs.size(digest))
                    return
        raise NoHolder(f"blob {digest} cannot be had ({'; '.join(failures) or 'no other node holds it'})")

    async def _receive(self, node: NodeId, digest: Digest) -> None:
        async with self._blobs.begin(name=digest) as writer:
            headers = {"Range": f"bytes={writer.size}-"} if writer.size else {}
            async with self._peers.request(node, "GET", _path(digest), headers=headers) as response:
                if response.status != 416:  # 416: all was received before the connection broke
                    await self._take_body(node, digest, response, writer)
            try:
                await writer.commit(expected=digest)
            except DigestMismatch:
                await self._report_corrupt(node, digest)
                raise

    async def _take_body(
        self, node: NodeId, digest: Digest, response: aiohttp.ClientResponse, writer: BlobWriter
    ) -> None:
        if response.status not in (200, 206):
            reason = (await response.content.read(500)).decode(errors="replace")
            raise PeerRefused(node, response.status, reason)
        if writer.size and _range_start(response) != writer.size:
            await writer.restart()
        if response.content_length is None:
            raise PeerRefused(node, response.status, "the answer does not say how long it is")
        purpose = Purpose.KEEP if digest in self._paced else Purpose.USE
        with self._blobs.room.claim(response.content_length, purpose) as claim:
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                await writer.write(chunk)
                claim.wrote(len(chunk))
                if (pace := self._paced.get(digest)) is not None:
                    await pace.take(len(chunk))

    async def _report_corrupt(self, node: NodeId, digest: Digest) -> None:
        """The holder checks its copy, and gets itself another one if need be."""
        with contextlib.suppress(PeerError):
            await self._peers.post(node, f"{_path(digest)}/verify", timeout=SYNC_SECONDS)

    async def _send(self, node: NodeId, digest: Digest) -> None:
        path, size = self._blobs.path(digest), self._blobs.size(digest)
        timeout = self._peers.limits(sock_read=max(SYNC_SECONDS, READ_SECONDS))
        headers = {"Content-Length": str(size)}
        with contextlib.ExitStack() as files:
            async with self._peers.request(
                node,
                "PUT",
                _path(digest),
                data=lambda: files.enter_context(path.open("rb")),
                headers=headers,
                timeout=timeout,
            ) as response:
                if response.status not in (200, 201):
                    reason = (await response.content.read(500)).decode(errors="replace")
                    raise PeerRefused(node, response.status, reason)


def _path(digest: Digest) -> str:
    return f"/peer/blobs/{digest}"


def _range_start(response: aiohttp.ClientResponse) -> int:
    """Where the body begins in the blob, by `Content-Range`; 0 for a whole one."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(found.group(1)) if response.status == 206 and found else 0


def _retrieve(task: "asyncio.Task[None]") -> None:
    """Every waiter may be gone: the outcome was logged, and must not be reported as never retrieved."""
    if not task.cancelled():
        task.exception()
