"""What other members ask of this node's store, on the peer port: to give a blob, to take one, to check one."""

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
from aiohttp import web

from consensus.state import Digest
from node import logs
from node.blobs.room import DiskFull
from node.blobs.send_file import send_file
from node.blobs.store import BlobStore
from node.blobs.writer import DigestMismatch
from node.peering.server import CALLER, STALL_SECONDS, json_answer, refusal
from parvada.identifiers import is_digest

log = logs.get("node.blobs.routes")

TRANSFERS = 16
MAX_BYTES = 64 * 1024**3


class BlobRoutes:
    """`routes` are served on the peer port. `on_corrupt` is told of a copy that was found corrupt and is gone."""

    def __init__(
        self, blobs: BlobStore, on_corrupt: Callable[[Digest], Awaitable[None]], max_bytes: int = MAX_BYTES
    ) -> None:
        self._blobs, self._on_corrupt, self._max_bytes = blobs, on_corrupt, max_bytes
        self._transfers = asyncio.Semaphore(TRANSFERS)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/peer/blobs/{digest}", self._get),
            web.put("/peer/blobs/{digest}", self._put),
            web.post("/peer/blobs/{digest}/verify", self._verify),
        ]

    async def _get(self, request: web.Request) -> web.StreamResponse:
        """Also HEAD, also with a Range. The receiver checks the digest."""
        digest = _digest(request)
        if self._blobs.has(digest) and not await self._blobs.complete(digest):
            await self._check(digest, "its own size")
        if not self._blobs.has(digest):
            raise refusal(web.HTTPNotFound, f"no blob {digest} on this node")
        self._blobs.touch(digest)
        return await send_file(request, self._blobs.path(digest), self._blobs.size(digest))

    async def _put(self, request: web.Request) -> web.Response:
        """Answers 201 once the blob is durable, 200 if it was here."""
        digest = _digest(request)
        if self._blobs.has(digest):
            self._blobs.touch(digest)
            return web.Response(status=200)
        size = request.content_length
        if size is None or size > self._max_bytes:
            raise refusal(web.HTTPRequestEntityTooLarge, f"a blob has 0 to {self._max_bytes} bytes, not {size}")
        if self._transfers.locked():
            raise refusal(web.HTTPServiceUnavailable, "too many transfers at once")
        async with self._transfers:
            await self._receive(request, digest, size)
        log.info("blob.received", digest=digest, sender=request[CALLER], bytes=size)
        return web.Response(status=201)

    async def _receive(self, request: web.Request, digest: Digest, size: int) -> None:
        try:
            with self._blobs.room.claim(size) as claim:
                async with self._blobs.begin() as writer:
                    while chunk := await _read(request):
                        await writer.write(chunk)
                        claim.wrote(len(chunk))
                    await writer.commit(expected=digest)
        except DigestMismatch as error:
            raise refusal(web.HTTPUnprocessableEntity, str(error)) from error
        except DiskFull as error:
            raise refusal(web.HTTPInsufficientStorage, str(error)) from error
        except (TimeoutError, ConnectionError, aiohttp.ClientError) as error:
            raise refusal(web.HTTPRequestTimeout, f"the body broke off: {error!r}") from error

    async def _verify(self, request: web.Request) -> web.Response:
        digest = _digest(request)
        return json_answer({"sound": await self._check(digest, request[CALLER])})

    async def _check(self, digest: Digest, reporter: str) -> bool:
        """Read the blob again; a corrupt one is gone after that, and another copy on its way."""
        sound = self._blobs.has(digest) and await self._blobs.verify(digest, again=True)
        if not sound:
            log.error("blob.corrupt", digest=digest, reporter=reporter)
            await self._on_corrupt(digest)
        return sound


async def _read(request: web.Request) -> bytes:
    """The next piece of the body; empty at its end. Raises TimeoutError."""
    async with asyncio.timeout(STALL_SECONDS):
        return await request.content.readany()


def _digest(request: web.Request) -> Digest:
    text = request.match_info["digest"]
    if not is_digest(text):
        raise refusal(web.HTTPBadRequest, f"{text[:80]!r} is not a SHA-256 digest in lower-case hexadecimal")
    return Digest(text)
