"""The one table from exception to HTTP answer. Handlers raise; the middleware here renders."""

import errno
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiohttp import web

from consensus.ports import CommandRejected, CommandTooLarge, MembershipRefused, NoQuorum
from node import logs
from node.blobs.distribute import NotDurable
from node.blobs.room import BlobError, DiskFull
from node.membership.leadership import LeaderUnreachable, NodeUnreachable, NotTakenOver
from node.peering.words import PeerError
from parvada.bearer import Unauthenticated
from parvada.nearest import did_you_mean
from parvada.refusals import from_http, problem
from training.errors import BadData, BadRequest, PoolBusy, PoolClosed, TaskFailed, WorkerLost

_log = logs.get("http")

BEGUN = web.RequestKey("begun", bool)
"""The answer's first bytes are on their way: from then on an error can only cut it off."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refusal(Exception):
    """An answer of 400 and more, with its sentence."""

    def __init__(self, status: int, code: str, message: str, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(_plain(message))
        self.status = status
        self.code = code
        self.details = {key: _plain(value) for key, value in (details or {}).items()}


def _plain(value: Any) -> Any:
    """Headers may hold bytes that are no UTF-8; the answer may not."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


class Unknown(Refusal):
    """404: as far as this node has applied the log, there is no such thing."""


def invalid(field: str, value: object, allowed: str) -> Refusal:
    """400: a parameter or field with a value that cannot be."""
    return Refusal(
        400,
        "invalid",
        f"{field} is {value!r}; it must be {allowed}",
        {"field": field, "value": value, "allowed": allowed},
    )


def unknown(kind: str, name: str, known: Iterable[str] = ()) -> Unknown:
    """404, with the nearest name there is."""
    names = sorted(known)
    return Unknown(404, f"unknown_{kind}", f"there is no {kind} {name!r}{did_you_mean(name, names)}", {"name": name})


_REJECTED: Mapping[str, int] = {
    "not_found": 404,
    "conflict": 409,
    "stale_epoch": 409,
    "in_use": 409,
    "revoked": 403,
    "dissolved": 503,
    "invalid": 400,
}

_TABLE: tuple[tuple[type[Exception], int, str], ...] = (
    (NoQuorum, 503, "no_quorum"),
    (CommandTooLarge, 413, "too_large"),
    (MembershipRefused, 409, "conflict"),
    (NodeUnreachable, 409, "node_unreachable"),
    (LeaderUnreachable, 503, "leader_unreachable"),
    (NotTakenOver, 503, "not_taken_over"),
    (NotDurable, 503, "not_durable"),
    (DiskFull, 503, "disk_full"),
    (PeerError, 503, "no_holder"),
    (BlobError, 503, "no_holder"),
    (PoolBusy, 429, "busy"),
    (PoolClosed, 503, "no_process"),
    (WorkerLost, 422, "not_processed"),
    (TaskFailed, 422, "not_processed"),
    (Unauthenticated, 401, "unauthenticated"),
    (TimeoutError, 503, "timeout"),
    (web.RequestPayloadError, 400, "malformed"),
    # Of a body nested too deeply to decode, or to pass on to the workshop.
    (RecursionError, 400, "malformed"),
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def render(error: Exception, path: str) -> web.Response:
    """Every exception as a `schema.Problem`; what is not in the table is our fault and shows no trace."""
    match error:
        case Refusal():
            return problem(error.status, error.code, str(error), error.details)
        case CommandRejected():
            return problem(_REJECTED.get(error.code, 400), error.code, error.reason)
        case BadRequest(code="unknown_format"):
            return problem(415, error.code, error.message, error.details)
        case BadRequest():
            return problem(400, error.code, error.message, error.details)
        case BadData(code="too_large"):
            return problem(413, error.code, error.message, error.details)
        case BadData():
            return problem(422, error.code, error.message, error.details)
        case web.HTTPException():
            return from_http(error, path)
        case OSError(errno=number) if number in _DISK_FULL:
            return problem(503, "disk_full", "the disk of this node is full; ask another node")
    for kind, status, code in _TABLE:
        if isinstance(error, kind):
            return problem(status, code, str(error))
    _log.exception("request.crashed", path=path)
    return problem(500, "internal_error", "this node failed to handle the request; its log says why")


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The outermost middleware."""
    try:
        return await handler(request)
    except ConnectionResetError:  # the client went away: there is nobody to answer
        return web.Response()
    except Exception as error:  # the edge: every error becomes an answer, by the table
        if not request.get(BEGUN):
            return render(error, request.path)
        _log.warning("answer.cut", path=request.path, reason=str(error))
        if request.transport is not None:
            request.transport.abort()  # so that nobody takes half an answer for a whole one
        return web.Response()
