"""The sans-IO heart of both clients: what a call is, how an answer is read, and what to do after each attempt.

Nothing here opens a socket or looks at a clock; `Client` and `AsyncClient` are two thin transports around it.
"""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import msgspec

from parvada._body import Upload
from parvada.errors import ApiError, BadAnswer, Unreachable, error_class
from parvada.schema import Problem

T = TypeVar("T")

REST_SECONDS = 1.0
"""A node that just failed is not asked again for this long while another one is there."""
LONGEST_REST_SECONDS = 2.0
"""Bound on a node's `Retry-After`: a new leader is usually there within two seconds."""
RETRIED = frozenset({429, 502, 503, 504})
"""Statuses that another node, or the same one a little later, may well not give."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request, but for the base URL. `silence` bounds the seconds without a byte, where it differs from
    the client's own timeout; `write` marks calls that change state (they carry an idempotency key and a token)."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | Upload | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    write: bool = False
    key: str = ""
    silence: float | None = None


class Response(msgspec.Struct, frozen=True):
    """`headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes
    url: str = ""


class Call(Generic[T]):
    """A request and the reader of its answer."""

    __slots__ = ("parse", "request")

    def __init__(self, request: Request, parse: Callable[[Response], T]) -> None:
        self.request = request
        self.parse = parse


class Route:
    """Which node to ask: stays with the one that answers, configured URLs before learned ones, failed ones rest."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._configured = tuple(dict.fromkeys(url.rstrip("/") for url in urls))
        self._urls = self._configured
        self._resting: dict[str, float] = {}
        self._current = self._configured[0] if self._configured else ""

    @property
    def urls(self) -> tuple[str, ...]:
        """All known base URLs, the configured ones first."""
        return self._urls

    @property
    def current(self) -> str:
        """The base URL that answered last (at first, the one to be tried)."""
        return self._current

    def learn(self, urls: Sequence[str]) -> None:
        """Replace the learned URLs; the configured ones stay, and stay first. The one that answers stays too: what
        nodes call one another may not be what they are called from here (mapped ports, networks of containers)."""
        self._urls = tuple(dict.fromkeys((*self._configured, *(url.rstrip("/") for url in urls), self._current)))
        self._resting = {url: until for url, until in self._resting.items() if url in self._urls}

    def choose(self, now: float) -> tuple[str, float]:
        """The next URL to ask and the seconds to wait before that (0 unless every node rests)."""
        if not self._urls:
            raise Unreachable(())
        order = (self._current, *self._urls) if self._current in self._urls else self._urls
        for url in order:
            if self._resting.get(url, 0.0) <= now:
                return url, 0.0
        soonest = min(self._urls, key=lambda url: self._resting[url])
        return soonest, self._resting[soonest] - now

    def failed(self, url: str, now: float, rest: float = REST_SECONDS) -> None:
        self._resting[url] = now + rest

    def answered(self, url: str) -> None:
        self._resting.pop(url, None)
        self._current = url


class Attempts:
    """The tries of one call. Ask `next`, send, tell `failed` or `settled`; ends by an error when patience is over.

    `patience` (seconds) bounds when the last attempt may begin; the first one is always made.
    """

    def __init__(self, route: Route, patience: float, now: float) -> None:
        self._route = route
        self._deadline = now + patience
        self._tried: list[tuple[str, str]] = []
        self._refused: Response | None = None
        self._first = True

    def next(self, now: float) -> tuple[str, float]:
        """(base URL, seconds to wait first); raises the most telling error once there is no time for another try."""
        url, wait = self._route.choose(now)
        if not self._first and now + wait >= self._deadline:
            raise self._verdict()
        self._first = False
        return url, wait

    def again(self) -> None:
        """The next attempt is made whatever the time: the last one was refused for want of a token only."""
        self._first = True

    def failed(self, url: str, reason: str, now: float) -> None:
        self._tried.append((url, reason))
        self._route.failed(url, now)

    def settled(self, response: Response, now: float) -> bool:
        """Whether this answer is the call's answer; if not, the next attempt is due."""
        if response.status not in RETRIED:
            self._route.answered(response.url)
            return True
        self._refused = response
        pause = min(retry_after(response) or REST_SECONDS, LONGEST_REST_SECONDS)
        self._route.failed(response.url, now, pause)
        return False

    def _verdict(self) -> Exception:
        if self._refused is not None:
            return problem_of(self._refused)
        return Unreachable(tuple(self._tried))


def retry_after(response: Response) -> float | None:
    """Seconds of the `Retry-After` header, if it has any."""
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None


def problem_of(response: Response) -> ApiError:
    """The exception for an answer with a status of 400 or more."""
    try:
        problem = msgspec.json.decode(response.body, type=Problem)
    except msgspec.MsgspecError:
        text = response.body[:200].decode(errors="replace").strip() or "no body"
        problem = Problem(error=f"{response.url} answered {response.status}: {text}", code="unknown")
    return error_class(response.status, problem.code)(
        response.status,
        problem.code,
        problem.error,
        problem.details,
        node=response.headers.get("x-parvada-node", ""),
        retry_after=retry_after(response),
    )


def read_json(response: Response, kind: type[T]) -> T:
    """The body as `kind`. Raises `ApiError` for an error answer and `BadAnswer` for a body of another shape."""
    if response.status >= 400:
        raise problem_of(response)
    try:
        return msgspec.json.decode(response.body, type=kind)
    except msgspec.MsgspecError as exc:
        raise BadAnswer(f"{response.url} gave an answer that is not Parvada's: {exc}") from exc


def read_list(response: Response, kind: type[T], key: str) -> list[T]:
    """A collection: `{key: […]}`. Raises as `read_json`."""
    found = read_json(response, dict[str, msgspec.Raw])
    if key not in found:
        raise BadAnswer(f"{response.url} gave an answer without {key!r}")
    try:
        return [msgspec.convert(item, kind) for item in msgspec.json.decode(found[key], type=list[Any])]
    except msgspec.MsgspecError as exc:
        raise BadAnswer(f"{response.url} gave an answer that is not Parvada's: {exc}") from exc


def split_urls(urls: str | Sequence[str]) -> list[str]:
    """Base URLs from a comma list or a sequence; `host:port` gets `http://`. Raises ValueError on anything else."""
    given = urls.split(",") if isinstance(urls, str) else list(urls)
    found = [url.strip().rstrip("/") for url in given if url.strip()]
    complete = [url if "://" in url else f"http://{url}" for url in found]
    for url in complete:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is not a URL of a node; expected http://host:port or https://host:port")
    return complete
