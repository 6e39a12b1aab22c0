"""The one shape of every answer of 400 and more, whichever door of a node gives it."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from parvada import schema

RETRY_AFTER_SECONDS = 1


def problem(
    status: int,
    code: str,
    message: str,
    details: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Every refusal looks like this; 429 and 503 say when to come back."""
    every = dict(headers or {})
    if status in (429, 503):
        every.setdefault("Retry-After", str(RETRY_AFTER_SECONDS))
    if status == 401:
        every.setdefault("WWW-Authenticate", "Bearer")
    body = schema.Problem(error=message, code=code, details=dict(details or {}))
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/json", charset="utf-8", headers=every
    )


def from_http(error: web.HTTPException, path: str) -> web.Response:
    """aiohttp's own refusals (no such path, wrong verb, body too large) in our shape. OPTIONS only asks which verbs
    there are, and is told."""
    status = error.status
    code = {404: "unknown_path", 405: "method_not_allowed", 413: "too_large"}.get(status, "refused")
    headers: dict[str, str] = {}
    details: dict[str, Any] = {}
    message = f"{HTTPStatus(status).phrase}: {path}"
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = sorted({*error.allowed_methods, "OPTIONS"})
        headers["Allow"] = ", ".join(allowed)
        if error.method == "OPTIONS":
            return web.Response(status=204, headers=headers)
        details["allowed"] = allowed
        message = f"{error.method} is not a verb of {path}; allowed: {', '.join(allowed)}"
    elif isinstance(error, web.HTTPRequestEntityTooLarge):
        message = error.text or "The body is too large."
    elif status == 404:
        message = f"There is nothing at {path}"
    return problem(status, code, message, details, headers)
