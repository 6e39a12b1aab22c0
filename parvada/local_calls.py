"""A child process's calls to its agent: the asynchronous end of `parvada.local`, for fronts and trainer alike."""

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from parvada.local import BLOBS, AdoptRequest, LocalBlob, StoredBlob, WireError, blob_path, read_frame
from parvada.schema import Problem

AGENT = URL("http://agent")
"""A placeholder host: the connector dials the socket whatever the name."""
CONNECT_SECONDS = 5.0

T = TypeVar("T")


class AgentAway(Exception):
    """It does not answer, has broken off, or said something that cannot be read."""


class AgentRefused(Exception):
    """It answered, and not with what was asked for."""

    def __init__(self, status: int, code: str, reason: str) -> None:
        super().__init__(f"{status} {code}: {reason}")
        self.status, self.code, self.reason = status, code, reason


class AgentSocket:
    """`connections` at most at a time, 0 for any number. Used in one event loop; `close` at the end."""

    def __init__(self, path: str | Path, connections: int = 0) -> None:
        self._path = str(path)
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """Made on first use, inside the running loop. Bodies are passed as they are, never decompressed."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(self._path, limit=self._connections),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS),
                skip_auto_headers=("User-Agent", "Accept-Encoding", "Accept", "Content-Type"),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def call(
        self, method: str, path: str, body: bytes = b"", *, seconds: float, headers: Mapping[str, str] | None = None
    ) -> bytes:
        """The body of the answer. Raises AgentAway, AgentRefused."""
        timeout = aiohttp.ClientTimeout(total=seconds, connect=CONNECT_SECONDS)
        url = AGENT.join(URL(path))
        try:
            async with self.session.request(method, url, data=body or None, headers=headers, timeout=timeout) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise AgentAway(f"{method} {path}: {type(error).__name__}: {error}") from error
        if answer.status >= 400:
            raise _refused(answer.status, content)
        return content

    async def frames(self, path: str, most: int, silence: float | None = None) -> AsyncGenerator[bytes]:
        """The bodies of a stream's frames until it ends. `silence`: seconds without a word after which it is given up.
        Raises AgentAway, AgentRefused."""
        timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS, sock_read=silence)
        try:
            async with self.session.get(AGENT.join(URL(path)), timeout=timeout) as answer:
                if answer.status >= 400:
                    raise _refused(answer.status, await answer.read())
                while (body := await read_frame(answer.content, most)) is not None:
                    yield body
        except (aiohttp.ClientError, OSError, TimeoutError, WireError) as error:
            raise AgentAway(f"{path}: {type(error).__name__}: {error}") from error

    async def blob(self, digest: str, seconds: float) -> LocalBlob:
        """Where its file is, brought from another node if need be. Raises AgentAway, AgentRefused."""
        return read_answer(await self.call("GET", blob_path(digest), seconds=seconds), LocalBlob)

    async def store(self, file: Path, seconds: float) -> StoredBlob:
        """Move `file` into the blob store; returns when it is durable. Raises AgentAway, AgentRefused."""
        body = msgspec.json.encode(AdoptRequest(str(file)))
        return read_answer(await self.call("POST", BLOBS, body, seconds=seconds), StoredBlob)


def read_answer(content: bytes, kind: type[T]) -> T:
    """Raises AgentAway: it cannot be read."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise AgentAway(f"an answer that is no {kind.__name__}: {error}") from error


def _refused(status: int, content: bytes) -> AgentRefused:
    try:
        problem = msgspec.json.decode(content, type=Problem)
    except msgspec.MsgspecError:
        return AgentRefused(status, "unreadable", content[:200].decode(errors="replace"))
    return AgentRefused(status, problem.code, problem.error)
