"""What both clients have in common before any byte is sent: nodes, token, headers and patience."""

import os
import secrets
import ssl
from collections.abc import Callable, Iterable, Sequence
from urllib.parse import urlencode

from parvada._body import Upload
from parvada._protocol import Request, Response, Route, split_urls
from parvada.schema import Node

DEFAULT_URL = "http://127.0.0.1:8080"
CONNECT_SECONDS = 2.0
"""A node that does not take a connection within this time is passed over."""

Token = str | Callable[[], str | None] | None


class Session:
    """State shared by the calls of one client: the route, the token, and what the last answer said.

    `token` may be a callable: it is asked once, when a call first needs a token. `timeout` bounds the seconds
    without a byte from one node, `patience` the seconds in which other tries may begin when nodes fail.
    """

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        token: Token = None,
        *,
        timeout: float = 10.0,
        patience: float = 10.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        found = split_urls(urls if urls is not None else os.environ.get("PARVADA_URL", DEFAULT_URL))
        if not found:
            raise ValueError("no URL of a node was given")
        self._route = Route(found)
        self._token = token
        self._sends_token = isinstance(token, str)
        self._timeout = timeout
        self._patience = patience
        self._tls = tls
        self._last: Response | None = None

    @property
    def urls(self) -> tuple[str, ...]:
        """All known base URLs, the configured ones first."""
        return self._route.urls

    @property
    def url(self) -> str:
        """Base URL of the node that answered last."""
        return self._route.current

    @property
    def node(self) -> str:
        """Id of the node that answered last, "" before the first answer."""
        return self._last.headers.get("x-parvada-node", "") if self._last else ""

    @property
    def stale_seconds(self) -> float | None:
        """Age of what the last answer said if its node had no quorum, else None."""
        text = self._last.headers.get("x-parvada-stale") if self._last else None
        return float(text) if text is not None else None

    def learn(self, nodes: Iterable[Node]) -> None:
        """Fail over to these nodes too, behind the URLs that were configured."""
        scheme = self._route.current.partition("://")[0]
        living = [node for node in nodes if node.state != "dead" and node.address]
        self._route.learn([f"{scheme}://{_host(node.address)}:{node.api_port}" for node in living])

    def _headers(self, request: Request, key: str) -> dict[str, str]:
        headers = {"Accept": request.accept, "User-Agent": "parvada-client"}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        if isinstance(request.body, Upload):
            headers["Content-Length"] = str(request.body.size)
        if request.write:
            headers["Idempotency-Key"] = key
            self._sends_token = True
        if self._sends_token and (token := self._resolved_token()):
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _resolved_token(self) -> str | None:
        if callable(self._token):
            self._token = self._token()
        return self._token

    def _may_try_with_token(self, response: Response) -> bool:
        """Whether a 401 came only because the token was not sent yet; from then on it is."""
        if response.status != 401 or self._sends_token:
            return False
        self._sends_token = True
        return self._resolved_token() is not None

    def _silence(self, request: Request) -> float:
        return request.silence if request.silence is not None else self._timeout


def new_key() -> str:
    """An idempotency key: one for each write, the same for all its attempts."""
    return secrets.token_hex(16)


def target_of(request: Request) -> str:
    """Path and query of a request."""
    return f"{request.path}?{urlencode(request.query)}" if request.query else request.path


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address
