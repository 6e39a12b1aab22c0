"""The asynchronous transport: one aiohttp session, and the loop over attempts."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self, TypeVar

import aiohttp
from yarl import URL

from parvada._body import CHUNK_BYTES, Download, Progress, Upload, upload_of
from parvada._protocol import Attempts, Call, Request, Response, problem_of
from parvada._session import CONNECT_SECONDS, Session, Token, new_key, target_of

if TYPE_CHECKING:
    from parvada._body import DataSource

T = TypeVar("T")
LOST = (aiohttp.ClientError, OSError, TimeoutError)
"""What a lost node looks like here."""


class AsyncSession(Session):
    """Sends calls from one event loop. Use as an async context manager, or `close` it."""

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        token: Token = None,
        *,
        timeout: float = 10.0,
        patience: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(urls, token, timeout=timeout, patience=patience, tls=tls)
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the kept connections."""
        if self._http is not None:
            await self._http.close()
            self._http = None

    def _clock(self) -> float:
        """Seconds of the clock by which this loop sleeps."""
        return asyncio.get_running_loop().time()

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _upload_of(self, source: "DataSource", progress: Progress | None) -> Upload:
        """What is to be sent: files are opened, and frames encoded, beside the loop."""
        return await asyncio.to_thread(upload_of, source, progress)

    async def _call(self, call: Call[T], key: str | None = None) -> T:
        key = key or new_key()
        attempts = Attempts(self._route, self._patience, self._clock())
        while True:
            url, wait = attempts.next(self._clock())
            await self._sleep(wait)
            try:
                async with self._send(url, call.request, key, self._silence(call.request)) as answer:
                    response = await _read(answer, url)
            except LOST as exc:
                attempts.failed(url, reason_of(exc), self._clock())
                continue
            if attempts.settled(response, self._clock()):
                if self._may_try_with_token(response):
                    attempts.again()
                    continue
                self._last = response
                return call.parse(response)

    async def _open(self, request: Request) -> "OpenStream":
        """An answer without end. Raises as `_call` if no node gives one."""

        async def take(answer: aiohttp.ClientResponse, stack: AsyncExitStack, url: str) -> OpenStream:
            return OpenStream(answer, stack.pop_all(), self._on_end(url))

        return await self._taken(request, take)

    async def _download(self, request: Request, to: Download) -> None:
        """The whole body of an answer of any size. Raises as `_call` if no node gives all of it."""

        async def take(answer: aiohttp.ClientResponse, stack: AsyncExitStack, url: str) -> None:
            to.again()
            async for chunk in answer.content.iter_chunked(CHUNK_BYTES):
                await asyncio.to_thread(to.write, chunk)

        await self._taken(request, take)

    async def _taken(
        self, request: Request, take: Callable[[aiohttp.ClientResponse, AsyncExitStack, str], Awaitable[T]]
    ) -> T:
        """What `take` makes of the first good answer, which is closed with the stack. A node that it loses is passed
        over."""
        attempts = Attempts(self._route, self._patience, self._clock())
        while True:
            url, wait = attempts.next(self._clock())
            await self._sleep(wait)
            try:
                async with AsyncExitStack() as stack:
                    answer = await stack.enter_async_context(self._send(url, request, "", self._silence(request)))
                    if answer.status == 200:
                        taken = await take(answer, stack, url)
                        self._route.answered(url)
                        return taken
                    response = await _read(answer, url)
            except LOST as exc:
                attempts.failed(url, reason_of(exc), self._clock())
                continue
            if attempts.settled(response, self._clock()):
                if not self._may_try_with_token(response):
                    raise problem_of(response)
                attempts.again()

    def _on_end(self, url: str) -> Callable[[], None]:
        return lambda: self._route.failed(url, self._clock())

    def _send(self, url: str, request: Request, key: str, silence: float) -> "aiohttp.client._RequestContextManager":
        if self._http is None or self._http.closed:
            self._http = aiohttp.ClientSession(auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar())
        body = _chunks(request.body) if isinstance(request.body, Upload) else request.body
        return self._http.request(
            request.method,
            URL(url + target_of(request), encoded=True),
            data=body,
            headers=self._headers(request, key),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=silence),
            ssl=self._tls if self._tls is not None else True,
            allow_redirects=False,
        )


class OpenStream:
    """The chunks of an answer without end; `on_end` is told once when the node ends or breaks it."""

    def __init__(self, answer: aiohttp.ClientResponse, stack: AsyncExitStack, on_end: Callable[[], None]) -> None:
        self._answer = answer
        self._stack = stack
        self._on_end = on_end

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._answer.close()
        await self._stack.aclose()

    async def next_chunk(self) -> bytes:
        """Bytes as they come; empty once the stream is over, for whatever reason."""
        try:
            chunk = await self._answer.content.readany()
        except LOST:
            chunk = b""
        if not chunk:
            self._on_end()
        return chunk


def reason_of(error: BaseException) -> str:
    """A transport error in a few words."""
    inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(inner, OSError) and inner.errno and inner.errno > 0:
        return os.strerror(inner.errno).lower()
    return str(inner) or type(inner).__name__


async def _read(answer: aiohttp.ClientResponse, url: str) -> Response:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Response(answer.status, headers, await answer.read(), url)


async def _chunks(upload: Upload) -> AsyncIterator[bytes]:
    chunks = upload.chunks()
    while chunk := await asyncio.to_thread(next, chunks, b""):
        yield chunk
