"""The blocking transport: `http.client` connections kept between calls, and the loop over attempts."""

import contextlib
import http.client
import os
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import urlsplit

from parvada._body import CHUNK_BYTES, Download, Progress, Upload, upload_of
from parvada._protocol import Attempts, Call, Request, Response, problem_of
from parvada._session import CONNECT_SECONDS, Session, Token, new_key, target_of

if TYPE_CHECKING:
    from parvada._body import DataSource

T = TypeVar("T")
LOST = (OSError, http.client.HTTPException)
"""What a lost node looks like here."""
IDLE_KEPT = 4
"""Idle connections kept for each node."""


class SyncSession(Session):
    """Sends calls from any thread. Use as a context manager, or `close` it.

    `clock` (monotonic seconds) and `sleep` are the time in which it is patient; how long a node is silent is the
    system's to tell.
    """

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        token: Token = None,
        *,
        timeout: float = 10.0,
        patience: float = 10.0,
        tls: ssl.SSLContext | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(urls, token, timeout=timeout, patience=patience, tls=tls)
        self._clock, self._sleep = clock, sleep
        self._idle: dict[str, list[http.client.HTTPConnection]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the kept connections."""
        with self._lock:
            kept, self._idle = self._idle, {}
        for connections in kept.values():
            for connection in connections:
                connection.close()

    def _upload_of(self, source: "DataSource", progress: Progress | None) -> Upload:
        return upload_of(source, progress)

    def _call(self, call: Call[T], key: str | None = None) -> T:
        key = key or new_key()
        attempts = Attempts(self._route, self._patience, self._clock())
        while True:
            url, wait = attempts.next(self._clock())
            self._sleep(wait)
            try:
                response = self._exchange(url, call.request, key)
            except LOST as exc:
                attempts.failed(url, reason_of(exc), self._clock())
                continue
            if attempts.settled(response, self._clock()):
                if self._may_try_with_token(response):
                    attempts.again()
                    continue
                self._last = response
                return call.parse(response)

    def _open(self, request: Request) -> "OpenStream":
        """An answer without end. Raises as `_call` if no node gives one."""
        return self._taken(request, lambda link, answer, url: OpenStream(link, answer, self._on_end(url)))

    def _download(self, request: Request, to: Download) -> None:
        """The whole body of an answer of any size. Raises as `_call` if no node gives all of it."""

        def take(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, url: str) -> None:
            with contextlib.closing(connection):
                to.again()
                while chunk := answer.read(CHUNK_BYTES):
                    to.write(chunk)
                if answer.length:  # `read` says nothing of an end that comes before its time
                    raise http.client.IncompleteRead(b"", answer.length)

        self._taken(request, take)

    def _taken(
        self, request: Request, take: Callable[[http.client.HTTPConnection, http.client.HTTPResponse, str], T]
    ) -> T:
        """What `take` makes of the first good answer; the connection is its own from then on. A node that it loses is
        passed over."""
        attempts = Attempts(self._route, self._patience, self._clock())
        while True:
            url, wait = attempts.next(self._clock())
            self._sleep(wait)
            connection = self._connect(url)
            try:
                answer = self._send(connection, request, "", self._silence(request))
                if answer.status == 200:
                    taken = take(connection, answer, url)
                    self._route.answered(url)
                    return taken
                response = _read(answer, url)
            except LOST as exc:
                attempts.failed(url, reason_of(exc), self._clock())
                connection.close()
                continue
            connection.close()
            if attempts.settled(response, self._clock()):
                if not self._may_try_with_token(response):
                    raise problem_of(response)
                attempts.again()

    def _on_end(self, url: str) -> Callable[[], None]:
        return lambda: self._route.failed(url, self._clock())

    def _exchange(self, url: str, request: Request, key: str) -> Response:
        connection, reused = self._take(url)
        try:
            response = self._whole(connection, url, request, key)
        except LOST:
            connection.close()
            if not reused:
                raise
        else:
            self._give_back(url, connection)
            return response
        # The node closed a kept connection in between: that says nothing about the node.
        connection = self._connect(url)
        try:
            response = self._whole(connection, url, request, key)
        except BaseException:
            connection.close()
            raise
        self._give_back(url, connection)
        return response

    def _whole(self, connection: http.client.HTTPConnection, url: str, request: Request, key: str) -> Response:
        return _read(self._send(connection, request, key, self._silence(request)), url)

    def _send(
        self, connection: http.client.HTTPConnection, request: Request, key: str, silence: float
    ) -> http.client.HTTPResponse:
        if connection.sock is None:
            connection.connect()
        connection.sock.settimeout(silence)
        body = request.body.chunks() if isinstance(request.body, Upload) else request.body
        headers = self._headers(request, key)
        try:
            connection.request(request.method, target_of(request), body=body, headers=headers)
        except ConnectionError:
            # A node that refuses an upload in its middle answers and closes: its answer tells more than the pipe.
            answer = connection.getresponse()
            answer.will_close = True
            return answer
        return connection.getresponse()

    def _connect(self, url: str) -> http.client.HTTPConnection:
        parts = urlsplit(url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            return http.client.HTTPSConnection(host, parts.port, timeout=CONNECT_SECONDS, context=self._tls)
        return http.client.HTTPConnection(host, parts.port, timeout=CONNECT_SECONDS)

    def _take(self, url: str) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            kept = self._idle.get(url)
            if kept:
                return kept.pop(), True
        return self._connect(url), False

    def _give_back(self, url: str, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            kept = self._idle.setdefault(url, [])
            if connection.sock is not None and len(kept) < IDLE_KEPT:
                kept.append(connection)
                return
        connection.close()


def reason_of(error: BaseException) -> str:
    """A transport error in a few words."""
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


def _read(answer: http.client.HTTPResponse, url: str) -> Response:
    headers = {name.lower(): value for name, value in answer.getheaders()}
    return Response(answer.status, headers, answer.read(), url)


class OpenStream:
    """The chunks of an answer without end; `on_end` is told once when the node ends or breaks it."""

    def __init__(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, on_end: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._answer = answer
        self._on_end = on_end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._answer.close()
        self._connection.close()

    def next_chunk(self) -> bytes:
        """Bytes as they come; empty once the stream is over, for whatever reason."""
        try:
            chunk = self._answer.read1(65536)
        except LOST:
            chunk = b""
        if not chunk:
            self._on_end()
        return chunk
