"""The calls of the Open Inference Protocol v2, on the same predict path as our own."""

import asyncio
from typing import Final

import msgspec
from aiohttp import web

import parvada
from parvada.refusals import RETRY_AFTER_SECONDS
from serving import operations, router, v2_schema as wire
from serving.edge import add, encoded_response, json_response, predict_with, read_body, version_in_path
from serving.errors import BadInput, ServingError, UnsupportedFormat
from serving.payload_v2 import V2Codec, input_tensors, output_tensors
from serving.service import SERVICE, Service
from serving.stats import ModelStats
from serving.view import ModelView, VersionView

EXTENSIONS: Final = ["model_configuration", "statistics"]
"""Only what works."""
_READY_SECONDS: Final = 2.0
"""How long the question whether a model is ready waits for its first load."""
_BINARY_HEADER: Final = "Inference-Header-Content-Length"


def _not_ready(body: wire.NotReadyProblem) -> web.Response:
    response = encoded_response(msgspec.json.encode(body), status=503)
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def _found(request: web.Request) -> tuple[Service, ModelView, VersionView]:
    """The model and version of the path. Raises `UnknownModel`."""
    service = request.app[SERVICE]
    service.allow(request, "viewer")
    model = router.model(service.view(), request.match_info["model"])
    return service, model, router.choose(model, version_in_path(request))


async def server_metadata(request: web.Request) -> web.Response:
    request.app[SERVICE].allow(request, "viewer")
    return json_response(wire.ServerMetadata("parvada", parvada.__version__, EXTENSIONS))


async def live(_request: web.Request) -> web.Response:
    return json_response(wire.Live(True))


async def ready(request: web.Request) -> web.Response:
    reason = request.app[SERVICE].not_ready()
    if reason:
        return _not_ready(wire.NotReadyProblem(error=reason, code="not_ready"))
    return json_response(wire.Ready(True))


async def models(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    service.allow(request, "viewer")
    return json_response(wire.Models([model.name for model in service.view().models]))


async def model_metadata(request: web.Request) -> web.Response:
    _, model, version = _found(request)
    return json_response(
        wire.ModelMetadata(
            name=model.name,
            platform=version.engine,
            versions=[str(number) for number in sorted(v.version for v in model.versions)],
            inputs=input_tensors(version),
            outputs=output_tensors(version),
            properties={"task": version.task, "estimator": version.estimator, "version": str(version.version)},
        )
    )


async def model_ready(request: web.Request) -> web.Response:
    """True once the version has been loaded here; asking starts its load."""
    service, model, version = _found(request)
    try:
        if not service.cache.loadable(version.digest):
            async with asyncio.timeout(_READY_SECONDS):
                await service.predictor.load(version)
    except (ServingError, TimeoutError) as error:
        reason = str(error) or "The model is being loaded"
        return _not_ready(wire.ModelNotReady(error=reason, code="not_ready", name=model.name))
    return json_response(wire.ModelReady(model.name, True))


async def infer(request: web.Request) -> web.Response:
    if _BINARY_HEADER in request.headers:
        raise UnsupportedFormat(f"Binary tensors ({_BINARY_HEADER}) are not served; send the data as JSON")
    return await predict_with(request, V2Codec(request.app[SERVICE].settings.max_predict_values))


def _config_tensors(tensors: list[wire.Tensor]) -> list[wire.ConfigTensor]:
    return [
        wire.ConfigTensor(t.name, "TYPE_STRING" if t.datatype == "BYTES" else f"TYPE_{t.datatype}", t.shape[1:] or [1])
        for t in tensors
    ]


async def model_config(request: web.Request) -> web.Response:
    service, model, version = _found(request)
    inputs = input_tensors(version)
    return json_response(
        wire.ModelConfig(
            name=model.name,
            platform=version.engine,
            max_batch_size=max(service.settings.max_predict_values // max(len(inputs), 1), 1),
            input=_config_tensors(inputs),
            output=_config_tensors(output_tensors(version)),
        )
    )


async def repository_index(request: web.Request) -> web.Response:
    """Every version of every model; the body may be empty."""
    service = request.app[SERVICE]
    service.allow(request, "viewer")
    with service.bodies.hold() as held:
        body = await read_body(request, held)
    try:
        wanted = msgspec.json.decode(body, type=wire.IndexRequest) if body.strip() else wire.IndexRequest()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput(f"The body is not an index request: {error}") from error
    entries = [
        wire.IndexEntry(model.name, str(version.version), *service.cache.state(version.digest))
        for model in service.view().models
        for version in model.versions
    ]
    return json_response([e for e in entries if e.state == "READY"] if wanted.ready else entries)


def _statistics(row: ModelStats) -> wire.ModelStatistics:
    count = row.requests - row.errors
    times = row.timings
    return wire.ModelStatistics(
        name=row.model,
        version=str(row.version),
        last_inference=row.last_ms,
        inference_count=row.rows,
        execution_count=count,
        inference_stats=wire.InferenceStats(
            success=wire.Duration(count, times.queue + times.input + times.infer + times.output),
            fail=wire.Duration(row.errors, row.fail_ns),
            queue=wire.Duration(count, times.queue),
            compute_input=wire.Duration(count, times.input),
            compute_infer=wire.Duration(count, times.infer),
            compute_output=wire.Duration(count, times.output),
        ),
    )


async def statistics(request: web.Request) -> web.Response:
    """Of all models, of one, or of one version; those never asked have zeros."""
    service = request.app[SERVICE]
    service.allow(request, "viewer")
    chosen = service.view().models
    number = version_in_path(request)
    if "model" in request.match_info:
        chosen = (router.model(service.view(), request.match_info["model"]),)
        if number is not None:
            router.choose(chosen[0], number)
    counted = {(row.model, row.version): row for row in service.stats()}
    keys = [(m.name, v.version) for m in chosen for v in m.versions if number in (None, v.version)]
    return json_response(wire.Statistics([_statistics(counted.get(key) or ModelStats(*key)) for key in keys]))


def add_routes(app: web.Application) -> None:
    add(
        app,
        (operations.SERVER, server_metadata),
        (operations.SERVER_SLASH, server_metadata),
        (operations.LIVE, live),
        (operations.READY, ready),
        (operations.MODELS, models),
        (operations.STATISTICS, statistics),
        (operations.INDEX, repository_index),
    )
    of_models = (
        (operations.MODEL, model_metadata),
        (operations.MODEL_READY, model_ready),
        (operations.MODEL_CONFIG, model_config),
        (operations.MODEL_STATISTICS, statistics),
        (operations.INFER, infer),
    )
    add(app, *of_models, *((operations.of_version(operation), handler) for operation, handler in of_models))
