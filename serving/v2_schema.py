"""The bodies of the Open Inference Protocol v2, as structs: what the wire says and nothing else."""

from typing import Annotated, Any, Literal

import msgspec

from parvada import schema

DATATYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BYTES"),
)
State = Literal["UNKNOWN", "READY", "UNAVAILABLE", "LOADING", "UNLOADING"]


class Tensor(msgspec.Struct):
    """A tensor's description in model metadata; a dimension of -1 is any number."""

    name: str
    datatype: str
    shape: list[int]


class ServerMetadata(msgspec.Struct):
    name: str
    version: str
    extensions: list[str]


class Live(msgspec.Struct):
    live: bool


class Ready(msgspec.Struct):
    ready: bool


class NotReadyProblem(schema.Problem, kw_only=True):
    """An error that also answers the question."""

    ready: bool = False


class ModelReady(msgspec.Struct):
    name: str
    ready: bool


class ModelNotReady(NotReadyProblem, kw_only=True):
    name: str


class Models(msgspec.Struct):
    models: list[str]


class ModelMetadata(msgspec.Struct):
    name: str
    platform: str
    versions: list[str]
    inputs: list[Tensor]
    outputs: list[Tensor]
    properties: dict[str, str]


class ConfigTensor(msgspec.Struct):
    """`dims` leave out the batch."""

    name: str
    data_type: str
    dims: list[int]


class ModelConfig(msgspec.Struct):
    name: str
    platform: str
    max_batch_size: int
    input: list[ConfigTensor]
    output: list[ConfigTensor]


class IndexRequest(msgspec.Struct):
    ready: bool = False


class IndexEntry(msgspec.Struct):
    name: str
    version: str
    state: State
    reason: str


class Duration(msgspec.Struct):
    count: int
    ns: int


class InferenceStats(msgspec.Struct):
    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class ModelStatistics(msgspec.Struct):
    name: str
    version: str
    last_inference: int
    """Unix time in milliseconds."""
    inference_count: int
    """Rows."""
    execution_count: int
    """Calls of the estimator."""
    inference_stats: InferenceStats
    batch_stats: list[Any] = []


class Statistics(msgspec.Struct):
    model_stats: list[ModelStatistics]


_SHAPE = msgspec.Meta(extra_json_schema={"minItems": 1, "maxItems": 2})
_COUNT = msgspec.Meta(extra_json_schema={"minimum": 0})
_DATATYPE = msgspec.Meta(extra_json_schema={"enum": DATATYPES})
_LIST = msgspec.Meta(extra_json_schema={"type": "array"}, description="Row by row: nested, or flat.")


class RequestInput(msgspec.Struct):
    """`data` stays undecoded until shape and size are known to be right."""

    name: str
    shape: Annotated[list[Annotated[int, _COUNT]], _SHAPE]
    datatype: Annotated[str, _DATATYPE]
    parameters: dict[str, Any] | None = None
    data: Annotated[msgspec.Raw, _LIST] | msgspec.UnsetType = msgspec.UNSET


_OUTPUT = msgspec.Meta(extra_json_schema={"enum": ["predict", "predict_proba", "decision_function"]})


class RequestOutput(msgspec.Struct):
    name: Annotated[str, _OUTPUT]
    """One that the model has; its metadata lists them."""
    parameters: dict[str, Any] | None = None


_SOME = msgspec.Meta(extra_json_schema={"minItems": 1})


class InferRequest(msgspec.Struct):
    """A field that is null is absent: clients generated from a schema send all of them."""

    inputs: Annotated[list[RequestInput], _SOME]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[RequestOutput] | None = None


class ResponseOutput(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    data: list[Any]


class InferResponse(msgspec.Struct, omit_defaults=True):
    model_name: str
    model_version: str
    outputs: list[ResponseOutput]
    id: str | None = None
