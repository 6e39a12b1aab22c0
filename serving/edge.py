"""The front's application: one middleware that passes on, refuses and marks; the health calls; the predict calls."""

import asyncio
import secrets
from typing import Any, Final

import msgspec
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from parvada import refusals, schema
from parvada.contract.operation import Operation
from serving import operations, problems
from serving.bodies import Held, check_encoding, codec_for
from serving.errors import BadInput, UnknownModel
from serving.payload import Codec
from serving.predictor import Call
from serving.proxy import PASSED
from serving.service import SERVICE, Service

BODY_SECONDS: Final = 60.0
"""A body that takes longer to arrive is refused: it would hold its memory for ever."""
_COMPRESS_FROM_BYTES: Final = 1024
_COMPRESS_IN_THREAD_BYTES: Final = 64 * 1024


def json_response(value: Any, status: int = 200) -> web.Response:
    """Any struct of the wire."""
    return encoded_response(msgspec.json.encode(value), status)


def encoded_response(body: bytes, status: int = 200) -> web.Response:
    """JSON already encoded; compressed when it is worth it and the client asks for it."""
    response = web.Response(
        body=body,
        status=status,
        content_type="application/json",
        charset="utf-8",
        zlib_executor_size=_COMPRESS_IN_THREAD_BYTES,
    )
    if len(body) >= _COMPRESS_FROM_BYTES:
        response.enable_compression()
    return response


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What no route here knows goes to the agent, but for /v2; every error becomes a `Problem`."""
    service = request.app[SERVICE]
    with service.in_flight:
        try:
            failure = request.match_info.http_exception
            if failure is not None and failure.status == 404 and not request.path.startswith("/v2"):
                return await service.proxy.pass_on(request)
            return await handler(request)
        except web.HTTPException as error:
            return refusals.from_http(error, request.path)
        except Exception as error:
            return problems.from_exception(error)


async def mark(request: web.Request, response: web.StreamResponse) -> None:
    """Say which node answered, and how old its knowledge is if it may be out of date."""
    service = request.app[SERVICE]
    if service.in_flight.stopping:
        # The header by hand: at this point aiohttp has already made up its own.
        response.headers[hdrs.CONNECTION] = "close"
        response.force_close()
    if request.get(PASSED):
        return
    response.headers["x-parvada-node"] = service.settings.node
    stale = service.link.stale_seconds()
    if stale is not None:
        response.headers["x-parvada-stale"] = str(int(stale))


async def read_body(request: web.Request, held: Held) -> bytes:
    """At most what the application's `client_max_size` allows (413), and what there is memory for (429), and within
    the time (400)."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while chunk := await request.content.readany():
                if len(body) + len(chunk) > request.client_max_size:
                    raise web.HTTPRequestEntityTooLarge(request.client_max_size, len(body) + len(chunk))
                held.grow(len(chunk))
                body += chunk
    except TimeoutError as error:
        raise BadInput(f"The body did not arrive within {BODY_SECONDS:g} s") from error
    return bytes(body)


def version_in_path(request: web.Request) -> int | None:
    """The version named in the path, if any. Raises `UnknownModel` for what is not a number."""
    text = request.match_info.get("version")
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise UnknownModel(f"Version {text!r} is not a number", version=text)
    return int(text)


async def predict_with(request: web.Request, codec: Codec) -> web.Response:
    """The way of every prediction, whatever its format."""
    service: Service = request.app[SERVICE]
    service.allow(request, "predictor")
    with service.bodies.hold() as held:
        call = Call(
            model=request.match_info["model"],
            version=version_in_path(request),
            key=request.headers.get("x-request-id") or secrets.token_hex(8),
            codec=codec,
            encoding=check_encoding(request.headers.get(hdrs.CONTENT_ENCODING, "")),
            body=await read_body(request, held),
        )
        return encoded_response(await service.predictor.predict(call))


async def predict(request: web.Request) -> web.Response:
    content_type = request.content_type if hdrs.CONTENT_TYPE in request.headers else ""
    limit = request.app[SERVICE].settings.max_predict_values
    return await predict_with(request, codec_for(content_type, limit))


async def healthz(_request: web.Request) -> web.Response:
    return json_response(schema.Health(status="ok"))


async def readyz(request: web.Request) -> web.Response:
    reason = request.app[SERVICE].not_ready()
    if reason:
        return refusals.problem(503, "not_ready", reason)
    return json_response(schema.Health(status="ready"))


def add(app: web.Application, *routes: tuple[Operation, Handler]) -> None:
    """Answers that are declared. With GET comes HEAD."""
    app.add_routes([web.route(operation.method, operation.path, handler) for operation, handler in routes])


def add_routes(app: web.Application) -> None:
    add(
        app,
        (operations.HEALTHZ, healthz),
        (operations.READYZ, readyz),
        (operations.PREDICT, predict),
        (operations.PREDICT_VERSION, predict),
    )
