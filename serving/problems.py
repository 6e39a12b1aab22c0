"""The one table from exception to HTTP status, and the one shape of every answer of 400 and more."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from parvada import schema
from serving import errors

log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 1

_TABLE: dict[type[Exception], tuple[int, str]] = {
    errors.BadInput: (400, "invalid_input"),
    errors.UnusableInput: (422, "unusable_input"),
    errors.UnsupportedFormat: (415, "unsupported_format"),
    errors.TooLarge: (413, "too_large"),
    errors.UnknownModel: (404, "unknown_model"),
    errors.Unauthenticated: (401, "unauthenticated"),
    errors.Forbidden: (403, "forbidden"),
    errors.Overloaded: (429, "overloaded"),
    errors.NotReady: (503, "not_ready"),
    errors.LoadFailed: (503, "model_not_loadable"),
    errors.PredictionFailed: (500, "prediction_failed"),
}


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


def from_exception(error: Exception) -> web.Response:
    """By the table; what is not in it is our fault, is logged with its trace, and shows none of it."""
    if isinstance(error, errors.ServingError):
        status, code = _TABLE[type(error)]
        if status >= 500:
            log.warning("request.failed code=%s error=%s", code, error)
        return problem(status, code, str(error), error.details)
    log.error("request.crashed", exc_info=error)
    return problem(500, "internal_error", "This node failed to handle the request; its log says why.")


def from_http(error: web.HTTPException, path: str) -> web.Response:
    """aiohttp's own refusals (no such path, wrong verb, body too large) in our shape."""
    status = error.status
    code = {404: "unknown_path", 405: "method_not_allowed", 413: "too_large"}.get(status, "refused")
    headers: dict[str, str] = {}
    details: dict[str, Any] = {}
    message = f"{HTTPStatus(status).phrase}: {path}"
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = sorted(error.allowed_methods)
        headers["Allow"] = ", ".join(allowed)
        details["allowed"] = allowed
        message = f"{error.method} is not a verb of {path}; allowed: {', '.join(allowed)}"
    elif isinstance(error, web.HTTPRequestEntityTooLarge):
        message = error.text or "The body is too large."
    elif status == 404:
        message = f"There is nothing at {path}"
    return problem(status, code, message, details, headers)
