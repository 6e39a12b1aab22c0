"""JSON tensors of the inference protocol: their datatypes, and their values checked against shape and datatype."""

import math
from typing import Any, Final, NoReturn

import msgspec

from serving.errors import BadInput
from serving.v2_schema import RequestInput

Decoder = msgspec.json.Decoder


class Datatype(msgspec.Struct, frozen=True):
    """How values of one datatype are read; null stands for a missing one. Bounds only for integers."""

    python: Any
    expected: str
    flat: Decoder[list[Any]]
    nested: Decoder[list[list[Any]]]
    low: int | None = None
    high: int | None = None

    def fits(self, value: Any) -> bool:
        """Whether one value is of the datatype and in its bounds."""
        try:
            msgspec.convert(value, self.python)
        except msgspec.ValidationError:
            return False
        return value is None or self.low is None or self.high is None or self.low <= value <= self.high


def _integer(low: int, high: int) -> Datatype:
    flat, nested = Decoder(list[int | None]), Decoder(list[list[int | None]])
    return Datatype(int | None, f"an integer from {low} to {high}", flat, nested, low, high)


_FLOAT: Final = Datatype(float | None, "a number", Decoder(list[float | None]), Decoder(list[list[float | None]]))
DATATYPES: Final[dict[str, Datatype]] = {
    "BOOL": Datatype(bool | None, "true or false", Decoder(list[bool | None]), Decoder(list[list[bool | None]])),
    **{f"UINT{bits}": _integer(0, (1 << bits) - 1) for bits in (8, 16, 32, 64)},
    **{f"INT{bits}": _integer(-(1 << (bits - 1)), (1 << (bits - 1)) - 1) for bits in (8, 16, 32, 64)},
    **dict.fromkeys(("FP16", "FP32", "FP64"), _FLOAT),
    "BYTES": Datatype(str | None, "a string", Decoder(list[str | None]), Decoder(list[list[str | None]])),
}


def elements(tensor: RequestInput) -> list[Any]:
    """The tensor's values in row-major order, from nested or flat `data`; shape of one or two dimensions. Raises
    `BadInput` unless there are as many as the shape says, each of the datatype."""
    datatype = DATATYPES.get(tensor.datatype)
    if datatype is None:
        raise BadInput(f"Input {tensor.name!r}: {tensor.datatype!r} is not one of {list(DATATYPES)}", input=tensor.name)
    raw = bytes(tensor.data or b"")
    if not raw:
        raise BadInput(f"Input {tensor.name!r} has no data (binary tensors are not served)", input=tensor.name)
    expected = math.prod(tensor.shape)
    if datatype.python != str | None and raw.count(b",") >= max(expected, 1):
        # Numbers hold no commas, so a surplus is known before a single value takes memory.
        _refuse_count(tensor, raw.count(b",") + 1)
    values = _decode(tensor, datatype, raw)
    if len(values) != expected:
        _refuse_count(tensor, len(values))
    low, high = datatype.low, datatype.high
    if low is not None and high is not None and any(v is not None and not low <= v <= high for v in values):
        _refuse_value(tensor, datatype, values)
    return values


def _decode(tensor: RequestInput, datatype: Datatype, raw: bytes) -> list[Any]:
    try:
        if not raw[1:].lstrip().startswith(b"["):
            return datatype.flat.decode(raw)
        rows = datatype.nested.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        _refuse_type(tensor, datatype, raw, error)
    width = tensor.shape[1] if len(tensor.shape) == 2 else -1
    for number, row in enumerate(rows, 1):
        if len(row) != width:
            raise BadInput(
                f"Input {tensor.name!r}, row {number}: {len(row)} nested values do not fit shape {tensor.shape}",
                input=tensor.name,
                row=number,
            )
    return [value for row in rows for value in row]


def _refuse_count(tensor: RequestInput, count: int) -> NoReturn:
    expected = math.prod(tensor.shape)
    raise BadInput(
        f"Input {tensor.name!r} has {count} values; shape {tensor.shape} needs {expected}",
        input=tensor.name,
        values=count,
        expected=expected,
    )


def _refuse_type(tensor: RequestInput, datatype: Datatype, raw: bytes, error: Exception) -> NoReturn:
    """Name the first value at fault, if the data is a list or a list of lists at all."""
    try:
        loose = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        loose = None
    if not isinstance(loose, list):
        raise BadInput(f"Input {tensor.name!r}: the data must be a list: {error}", input=tensor.name) from error
    _refuse_value(tensor, datatype, [v for row in loose for v in (row if isinstance(row, list) else [row])], error)


def _refuse_value(
    tensor: RequestInput, datatype: Datatype, values: list[Any], cause: Exception | None = None
) -> NoReturn:
    position = next((i for i, value in enumerate(values) if not datatype.fits(value)), None)
    if position is None:
        raise BadInput(
            f"Input {tensor.name!r}: the data does not fit shape {tensor.shape}", input=tensor.name
        ) from cause
    width = max(tensor.shape[1], 1) if len(tensor.shape) == 2 else 1
    row, column = position // width + 1, position % width + 1
    shown = repr(values[position])[:80]
    raise BadInput(
        f"Input {tensor.name!r}, row {row}, column {column}: {shown} is not {datatype.expected}",
        input=tensor.name,
        row=row,
        column=column,
        value=shown,
    ) from cause
