"""What the fronts answer themselves, as data: the agent describes it too, and imports nothing else of the handlers."""

from typing import Any, Final

import msgspec

from parvada import schema
from parvada.contract.operation import Answer, AnyOf, Body, Example, Operation
from serving import v2_schema as v2

CSV, TSV = "text/csv", "text/tab-separated-values"
_ROW: Final = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
_TABLE: Final = {"columns": list(_ROW), "data": [list(_ROW.values()), [6.7, 3.0, 5.2, 2.3]]}
_PREDICTED: Final = {
    "predictions": ["setosa"],
    "model": "iris",
    "version": 1,
    "engine": "sklearn",
    "probabilities": [{"setosa": 1.0, "versicolor": 0.0, "virginica": 0.0}],
}
_INFER: Final = {
    "id": "42",
    "inputs": [{"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": list(_ROW.values())}],
}
_INFERRED: Final = {
    "model_name": "iris",
    "model_version": "1",
    "outputs": [{"name": "predict", "shape": [1], "datatype": "BYTES", "data": ["setosa"]}],
    "id": "42",
}


def _get(path: str, form: Any, summary: str, text: str = "", *more: Answer, **options: Any) -> Operation:
    return Operation(
        method="GET",
        path=path,
        tag=options.pop("tag", "Inference protocol"),
        summary=summary,
        text=text,
        query=None,
        answers=(Answer(form), *more),
        refuses=options.pop("refuses", (503,)),
        **options,
    )


HEALTHZ: Final = _get(
    "/healthz", schema.Health, "200 while the process lives.", tag="Observation", role=None, refuses=()
)
READYZ: Final = _get(
    "/readyz",
    schema.Health,
    "200 when this node is a member and can serve what it should.",
    "Else 503, with the reason.",
    tag="Observation",
    role=None,
)

PREDICT: Final = Operation(
    method="POST",
    path="/v1/models/{model}/predict",
    tag="Predictions",
    summary="Predict rows.",
    text="The version that `production` names, or an arm of the model's traffic split, by `x-request-id`.",
    role="predictor",
    query=None,
    body=Body(
        AnyOf((schema.PredictRows, schema.PredictTable)),
        media=("application/json", CSV, TSV),
        examples=(
            Example("Rows", {"rows": [_ROW]}),
            Example("Columns and data", _TABLE),
            Example("A file", ",".join(_ROW) + "\n5.1,3.5,1.4,0.2\n", CSV),
            Example("A file with tabs", "\t".join(_ROW) + "\n5.1\t3.5\t1.4\t0.2\n", TSV),
        ),
    ),
    answers=(Answer(schema.PredictResponse, example=_PREDICTED),),
    refuses=(422, 429, 503),
)
PREDICT_VERSION: Final = msgspec.structs.replace(
    PREDICT, path="/v1/models/{model}/versions/{version}/predict", summary="Predict rows with one version.", text=""
)

SERVER: Final = _get("/v2", v2.ServerMetadata, "Name, version and extensions of the server.")
SERVER_SLASH: Final = _get("/v2/", v2.ServerMetadata, "As `/v2`.")
LIVE: Final = _get("/v2/health/live", v2.Live, "True while the process lives.", role=None, refuses=())
READY: Final = _get(
    "/v2/health/ready",
    v2.Ready,
    "True when every model with a serving alias can be served here.",
    "",
    Answer(v2.NotReadyProblem, 503, text="Not ready, and why."),
    role=None,
    refuses=(),
)
MODELS: Final = _get("/v2/models", v2.Models, "Names of all models.")
STATISTICS: Final = _get("/v2/models/stats", v2.Statistics, "Counts and times of all models on this node.")
INDEX: Final = Operation(
    method="POST",
    path="/v2/repository/index",
    tag="Inference protocol",
    summary="Every version of every model, and its state here.",
    text="The body may be empty; with `ready`, only those that are loaded.",
    query=None,
    body=Body(v2.IndexRequest, required=False, examples=(Example("Only what is ready", {"ready": True}),)),
    answers=(Answer(list[v2.IndexEntry]),),
    refuses=(429, 503),
)
MODEL: Final = _get("/v2/models/{model}", v2.ModelMetadata, "Inputs and outputs of a model.")
MODEL_READY: Final = _get(
    "/v2/models/{model}/ready",
    v2.ModelReady,
    "Whether a model is loaded here; asking starts its load.",
    "",
    Answer(AnyOf((v2.ModelNotReady, schema.Problem)), 503, text="Known and not ready, and why."),
    refuses=(),
)
MODEL_CONFIG: Final = _get("/v2/models/{model}/config", v2.ModelConfig, "A model's configuration.")
MODEL_STATISTICS: Final = _get("/v2/models/{model}/stats", v2.Statistics, "Counts and times of a model on this node.")
INFER: Final = Operation(
    method="POST",
    path="/v2/models/{model}/infer",
    tag="Inference protocol",
    summary="Infer.",
    text="One tensor with all numeric features, `[rows, features]`, or one tensor a column, named as it.",
    role="predictor",
    query=None,
    body=Body(v2.InferRequest, examples=(Example("One tensor with all features", _INFER),)),
    answers=(Answer(v2.InferResponse, example=_INFERRED),),
    refuses=(422, 429, 503),
)


def of_version(operation: Operation) -> Operation:
    """The same call, of one version of the model."""
    path = operation.path.replace("{model}", "{model}/versions/{version}")
    return msgspec.structs.replace(operation, path=path, text=f"Of one version. {operation.text}".strip())


_OF_MODELS: Final = (MODEL, MODEL_READY, MODEL_CONFIG, MODEL_STATISTICS, INFER)
OPERATIONS: Final[tuple[Operation, ...]] = (
    PREDICT,
    PREDICT_VERSION,
    SERVER,
    SERVER_SLASH,
    LIVE,
    READY,
    MODELS,
    *_OF_MODELS,
    *map(of_version, _OF_MODELS),
    STATISTICS,
    INDEX,
    HEALTHZ,
    READYZ,
)
