"""What the clients raise: one tree, rooted in `ParvadaError`, and the table from an answer's status to its class."""

from typing import Any


class ParvadaError(Exception):
    """Root of all errors of the public face."""


class Unreachable(ParvadaError):
    """No node answered within the client's patience. `attempts` holds (URL, reason) in the order tried."""

    def __init__(self, attempts: tuple[tuple[str, str], ...]) -> None:
        self.attempts = attempts
        last = dict(attempts)
        tried = "; ".join(f"{url}: {reason}" for url, reason in last.items()) or "no URL is known"
        super().__init__(f"no node answered ({tried})")


class JobTimeout(ParvadaError):
    """A wait for a job ended before the job did; the job runs on."""


class BadAnswer(ParvadaError):
    """An answer that is not what the API promises: most often something else listens at that URL."""


class ApiError(ParvadaError):
    """A node answered with a status of 400 or more.

    `status` is the HTTP status, `code` the machine-readable reason, `details` what the API says about the value at
    fault, `node` the id of the node that answered ("" when unknown), `retry_after` seconds if the node gave them.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        node: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details or {}
        self.node = node
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions are rebuilt from `args`, which hold the message alone; process pools need the whole."""
        return _rebuild, (type(self), self.status, self.code, self.message, self.details, self.node, self.retry_after)


def _rebuild(
    cls: type[ApiError], status: int, code: str, message: str, details: dict[str, Any], node: str, after: float | None
) -> ApiError:
    return cls(status, code, message, details, node=node, retry_after=after)


class Invalid(ApiError):
    """400, 415 or 422: the request or its data cannot be used; nothing was changed."""


class Unauthorized(ApiError):
    """401: no token, or one that the cluster does not know."""


class Forbidden(ApiError):
    """403: the token's role does not allow the call."""


class NotFound(ApiError):
    """404."""


class Conflict(ApiError):
    """409: the call contradicts the present state."""


class TooLarge(ApiError):
    """413: over the cluster's limit for bodies or values."""


class Overloaded(ApiError):
    """429: too many calls in flight at every node that was tried."""


class ServerFault(ApiError):
    """500 and its kin: a defect of the node; its log has more."""


class Unavailable(ApiError):
    """503: the node cannot do this now."""


class NoQuorum(Unavailable):
    """503 `no_quorum`: too few voters are alive, so nothing can be written; reads and predictions go on."""


_BY_STATUS: dict[int, type[ApiError]] = {
    400: Invalid,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: TooLarge,
    415: Invalid,
    422: Invalid,
    429: Overloaded,
    503: Unavailable,
}


def error_class(status: int, code: str) -> type[ApiError]:
    """The class for an answer's status and code; never raises."""
    if code == "no_quorum":
        return NoQuorum
    return _BY_STATUS.get(status, ServerFault if status >= 500 else Invalid if status < 404 else ApiError)
