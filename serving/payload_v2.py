"""Inference requests and answers of the Open Inference Protocol v2: JSON tensors ↔ columns.

Two input forms: one tensor `[rows, features]` of all numeric features, or one tensor a column, named as it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from parvada.schema import ColumnType
from serving import engines
from serving.errors import BadInput
from serving.labels import as_labels, target_type
from serving.payload import Request, Served, check_size, find_column, inputs_meant, names_of
from serving.tensors import elements
from serving.v2_schema import InferRequest, InferResponse, RequestInput, ResponseOutput, Tensor
from serving.view import VersionView

if TYPE_CHECKING:
    from serving.engines import Array

_INFER = msgspec.json.Decoder(InferRequest)
_NUMERIC: Final = ("integer", "number")
DATATYPE_OF: Final[dict[ColumnType, str]] = {
    "integer": "INT64",
    "number": "FP64",
    "boolean": "BOOL",
    "category": "BYTES",
    "text": "BYTES",
    "datetime": "BYTES",
}


class V2Codec(msgspec.Struct, frozen=True):
    max_values: int

    def decode(self, body: bytes, version: VersionView) -> Request:
        try:
            request = _INFER.decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise BadInput(f"The body is not an inference request: {error}") from error
        if not request.inputs:
            raise BadInput("The request has no inputs")
        columns, rows = self._columns(request.inputs, version)
        asked = tuple(dict.fromkeys(output.name for output in request.outputs or ())) or None
        return Request(columns, rows, outputs=asked, id=request.id)

    def outputs(self, request: Request, served: Served) -> tuple[str, ...]:
        asked = request.outputs or (engines.PREDICT,)
        for name in asked:
            if name not in served.engine.outputs:
                have = list(served.engine.outputs)
                raise BadInput(f"The model has no output {name!r}; it has {have}", output=name, outputs=have)
        return asked

    def encode(self, request: Request, served: Served, results: "Mapping[str, Array]") -> bytes:
        outputs = [_output(name, array, served.version) for name, array in results.items()]
        version = str(served.version.version)
        return msgspec.json.encode(InferResponse(served.model.name, version, outputs, request.id))

    def _columns(self, inputs: list[RequestInput], version: VersionView) -> tuple[dict[str, list[Any]], int]:
        first = inputs[0]
        if len(inputs) == 1 and len(first.shape) == 2 and find_column(first.name, names_of(version)) is None:
            return self._matrix(first, version)
        meant = inputs_meant([tensor.name for tensor in inputs], version)
        used = {name: tensor for name, tensor in zip(meant, inputs, strict=True) if name is not None}
        rows = {tensor.name: _rows_of_column(tensor) for tensor in used.values() or [first]}
        if len(set(rows.values())) > 1:
            raise BadInput(f"The inputs have different numbers of rows: {rows}", rows=rows)
        (count,) = set(rows.values())
        check_size(count, len(inputs), self.max_values)
        return {name: elements(tensor) for name, tensor in used.items()}, count

    def _matrix(self, tensor: RequestInput, version: VersionView) -> tuple[dict[str, list[Any]], int]:
        fields = version.signature.inputs
        other = [field.name for field in fields if field.type not in _NUMERIC]
        if other:
            raise BadInput(
                f"Input {tensor.name!r} is one tensor for all columns, but {other} are not numbers: "
                "send one input for each column, named as the column",
                input=tensor.name,
                columns=other,
            )
        rows, width = tensor.shape
        if width != len(fields):
            raise BadInput(
                f"Input {tensor.name!r} has {width} features in each row; the model has {len(fields)}",
                input=tensor.name,
                features=width,
                expected=len(fields),
            )
        check_size(max(rows, 0), width, self.max_values)
        flat = elements(tensor)
        return {field.name: flat[number::width] for number, field in enumerate(fields)}, rows


def _rows_of_column(tensor: RequestInput) -> int:
    if not (len(tensor.shape) == 1 or (len(tensor.shape) == 2 and tensor.shape[1] == 1)) or tensor.shape[0] < 0:
        raise BadInput(
            f"Input {tensor.name!r} has shape {tensor.shape}; a column has shape [rows] or [rows, 1]",
            input=tensor.name,
            shape=tensor.shape,
        )
    return tensor.shape[0]


def _output(name: str, array: "Array", version: VersionView) -> ResponseOutput:
    shape = [int(dimension) for dimension in array.shape]
    flat = array.reshape(-1).tolist()
    if name == engines.PREDICT:
        return ResponseOutput(name, shape, DATATYPE_OF[target_type(version)], as_labels(flat, version))
    return ResponseOutput(name, shape, "FP64", [float(value) for value in flat])


def input_tensors(version: VersionView) -> list[Tensor]:
    """One tensor a column, as the second input form names them."""
    return [Tensor(field.name, DATATYPE_OF[field.type], [-1, 1]) for field in version.signature.inputs]


def output_tensors(version: VersionView) -> list[Tensor]:
    return [
        Tensor(output.name, _output_datatype(output.name, version), _output_shape(output.name, version))
        for output in version.signature.outputs
    ]


def _output_datatype(name: str, version: VersionView) -> str:
    return DATATYPE_OF[target_type(version)] if name == engines.PREDICT else "FP64"


def _output_shape(name: str, version: VersionView) -> list[int]:
    classes = next((o.classes for o in version.signature.outputs if o.name == name and o.classes), None)
    if name == engines.PROBA:
        return [-1, len(classes) if classes else -1]
    if name == engines.DECISION:
        return [-1] if version.task == "binary" else [-1, -1]
    return [-1]
