"""A plain HTTP client of the standard library, so that tests see the wire as any client would."""

import http.client
import json
from typing import Any, NamedTuple
from urllib.parse import urlsplit


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


def request(
    method: str,
    url: str,
    body: bytes | dict[str, Any] | list[Any] | None = None,
    *,
    token: str = "",
    headers: dict[str, str] | None = None,
    timeout: float = 30.0,
) -> Answer:
    """One request on a new connection. A dict or list is sent as JSON; a JSON answer is decoded.

    Raises:
        OSError: the node cannot be reached, or hung up.
    """
    parts = urlsplit(url)
    assert parts.hostname is not None
    connection = http.client.HTTPConnection(parts.hostname, parts.port or 80, timeout=timeout)
    sent = dict(headers or {})
    if token:
        sent["Authorization"] = f"Bearer {token}"
    if isinstance(body, dict | list):
        body = json.dumps(body).encode()
        sent.setdefault("Content-Type", "application/json")
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, path, body=body, headers=sent)
        response = connection.getresponse()
        raw = response.read()
    except http.client.HTTPException as error:
        raise ConnectionError(f"{method} {url}: {error!r}") from error
    finally:
        connection.close()
    kept = {name.lower(): value for name, value in response.getheaders()}
    decoded = json.loads(raw) if "json" in kept.get("content-type", "") and raw else raw
    return Answer(response.status, decoded, kept)
