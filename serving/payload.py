"""Our own request and answer formats: JSON rows, JSON columns with data, and CSV, checked against the signature.

What the values of a column may be is decided by `parvada.columns`, the conversion that training uses as well.
"""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

import msgspec

from parvada import quotes, schema
from parvada.columns import ColumnError, to_frame
from parvada.delimited import delimiter_of, told_delimiter, without_told
from parvada.names import AmbiguousName, ColumnNames, header_names
from parvada.nearest import nearest
from parvada.texts import MISSING
from serving import engines
from serving.engines import Engine
from serving.errors import BadInput, TooLarge
from serving.labels import as_key, as_labels
from serving.view import ModelView, VersionView

if TYPE_CHECKING:
    import pandas

_SHOWN_CHARACTERS: Final = 200


class Request(msgspec.Struct, frozen=True):
    """A decoded request: columns of equal length by name, and the outputs asked for (None: the format's own)."""

    columns: Mapping[str, Sequence[Any]]
    rows: int
    outputs: tuple[str, ...] | None = None
    text: bool = False
    """All values are texts of a CSV file."""
    id: str | None = None


class Served(msgspec.Struct, frozen=True):
    """Who answers."""

    model: ModelView
    version: VersionView
    engine: Engine


class Codec(Protocol):
    """One format: bytes to `Request`, results to bytes. Called in a thread, by many at once.

    `decode` raises `BadInput` or `TooLarge`, `outputs` raises `BadInput`.
    """

    def decode(self, body: bytes, version: VersionView) -> Request: ...

    def outputs(self, request: Request, served: Served) -> tuple[str, ...]: ...

    def encode(self, request: Request, served: Served, results: "Mapping[str, engines.Array]") -> bytes: ...


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """Rows stay undecoded until they are counted: ten million values are refused before they take memory."""

    rows: list[msgspec.Raw] | None = None
    columns: list[str] | None = None
    data: list[msgspec.Raw] | None = None


_BODY = msgspec.json.Decoder(_Body)
_ROW = msgspec.json.Decoder(dict[str, Any])
_CELLS = msgspec.json.Decoder(list[Any])


def to_features(request: Request, version: VersionView) -> "pandas.DataFrame":
    """The frame that the pipeline takes. Raises `BadInput` naming column, row and value."""
    absent = [None] * request.rows
    columns = {field.name: request.columns.get(field.name, absent) for field in version.signature.inputs}
    try:
        return to_frame(columns, version.signature.inputs, text=request.text)
    except ColumnError as error:
        raise BadInput(
            f"{error}"[:1000], column=error.column, row=error.row, value=_shown(error.value), reason=error.reason
        ) from error


def check_size(rows: int, columns: int, max_values: int) -> None:
    """Raises `BadInput` for no rows, `TooLarge` for too many values."""
    if rows == 0:
        raise BadInput("There are no rows to predict")
    if rows * columns > max_values:
        raise TooLarge(
            f"{rows} rows of {columns} columns are more than the {max_values} values that one request may have",
            rows=rows,
            columns=columns,
            max_values=max_values,
        )


def names_of(version: VersionView) -> ColumnNames:
    """Every column that a request may name: the inputs, and those that are ignored."""
    return ColumnNames([*(field.name for field in version.signature.inputs), *version.signature.ignored])


def find_column(name: str, names: ColumnNames) -> str | None:
    """Raises `BadInput` for a name that may mean several columns."""
    try:
        return names.find(name)
    except AmbiguousName as error:
        raise BadInput(f"column {error}"[:1000], column=name, columns=error.meant) from error


def inputs_meant(given: Sequence[str], version: VersionView, rows: Mapping[str, int] | None = None) -> list[str | None]:
    """The input that each name means, None for a column that the model ignores. `rows`: in which row a name is first.

    Raises `BadInput` for an input given twice, an unknown column, or a missing required one.
    """
    inputs, names = {field.name: field for field in version.signature.inputs}, names_of(version)
    meant: list[str | None] = []
    taken: set[str] = set()
    for name in given:
        column = find_column(name, names)
        if column is None:
            refuse_unknown(name, list(inputs), rows.get(name) if rows else None)
        if column in taken:
            raise BadInput(f"column {column!r} is given twice", column=column)
        if column in inputs:
            taken.add(column)
        meant.append(column if column in inputs else None)
    missing = [field.name for field in inputs.values() if field.required and field.name not in taken]
    if missing:
        raise BadInput(f"column {missing[0]!r} is missing; needed: {missing}", column=missing[0], missing=missing)
    return meant


def refuse_unknown(name: str, known: Sequence[str], row: int | None = None) -> NoReturn:
    near = nearest(name, known)
    hint = f"; did you mean {near!r}?" if near is not None else f"; the model's columns are {list(known[:50])}"
    where = "" if row is None else f", row {row}"
    alike = [] if near is None else [near]
    raise BadInput(f"column {name!r}{where}: the model has no such column{hint}", column=name, row=row, nearest=alike)


def _shown(value: object) -> Any:
    """A value as it may stand in an error: a short JSON scalar."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"


class JsonCodec(msgspec.Struct, frozen=True):
    """`{"rows": [{column: value}]}` or `{"columns": [...], "data": [[...]]}`."""

    max_values: int

    def decode(self, body: bytes, version: VersionView) -> Request:
        decoded = _decode_body(body)
        if decoded.rows is not None and decoded.columns is None and decoded.data is None:
            return self._from_rows(decoded.rows, version)
        if decoded.rows is None and decoded.columns is not None and decoded.data is not None:
            return self._from_data(decoded.columns, decoded.data, version)
        raise BadInput('The body must have either "rows", or "columns" and "data"')

    def outputs(self, request: Request, served: Served) -> tuple[str, ...]:
        return tuple(o for o in (engines.PREDICT, engines.PROBA) if o in served.engine.outputs)

    def encode(self, request: Request, served: Served, results: "Mapping[str, engines.Array]") -> bytes:
        return encode_answer(served, results)

    def _from_rows(self, raw: list[msgspec.Raw], version: VersionView) -> Request:
        check_size(len(raw), len(version.signature.inputs), self.max_values)
        rows = [_decode_row(item, number) for number, item in enumerate(raw, 1)]
        seen: dict[str, int] = {}
        for number, row in enumerate(rows, 1):
            if not row.keys() <= seen.keys():
                seen |= {name: number for name in row if name not in seen}
        meant = zip(seen, inputs_meant(list(seen), version, seen), strict=True)
        return Request({column: [row.get(name) for row in rows] for name, column in meant if column}, len(rows))

    def _from_data(self, names: list[str], raw: list[msgspec.Raw], version: VersionView) -> Request:
        meant = inputs_meant(names, version)
        check_size(len(raw), len(names), self.max_values)
        rows = [_decode_cells(item, number, len(names)) for number, item in enumerate(raw, 1)]
        return Request(_columns(meant, rows), len(rows))


def _columns(meant: Sequence[str | None], rows: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    """The cells of each input that is meant, by its name."""
    return {name: [row[place] for row in rows] for place, name in enumerate(meant) if name is not None}


def _decode_body(body: bytes) -> _Body:
    try:
        return _BODY.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput(f"The body is not as expected: {error}") from error


def _decode_row(raw: msgspec.Raw, number: int) -> dict[str, Any]:
    try:
        return _ROW.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput(f"row {number}: {error}", row=number) from error


def _decode_cells(raw: msgspec.Raw, number: int, width: int) -> list[Any]:
    try:
        cells = _CELLS.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadInput(f"row {number}: {error}", row=number) from error
    if len(cells) != width:
        raise BadInput(f"row {number}: has {len(cells)} values for {width} columns", row=number)
    return cells


class CsvCodec(msgspec.Struct, frozen=True):
    """A header and rows, UTF-8, as an upload would be read. An empty cell, `NA`, `NaN` or `null` is a missing value.
    Answers in JSON."""

    max_values: int
    delimiter: str | None = None
    """None: what the text shows."""

    def decode(self, body: bytes, version: VersionView) -> Request:
        try:
            text = body.decode("utf-8-sig")
            delimiter = self.delimiter or told_delimiter(text) or delimiter_of(text) or ","
            text = without_told(text)
            lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
            header = header_names(next(filter(None, lines), []))
            meant = inputs_meant(header, version)
            rows = list(self._rows(lines, len(header)))
            if '"' in text and any(field.reading and not field.reading.trim for field in version.signature.inputs):
                rows = _as_quoted(text, delimiter, rows)
        except (csv.Error, UnicodeDecodeError) as error:
            raise BadInput(f"The body is not CSV in UTF-8: {error}") from error
        check_size(len(rows), len(header), self.max_values)
        return Request(_columns(meant, rows), len(rows), text=True)

    def outputs(self, request: Request, served: Served) -> tuple[str, ...]:
        return tuple(o for o in (engines.PREDICT, engines.PROBA) if o in served.engine.outputs)

    def encode(self, request: Request, served: Served, results: "Mapping[str, engines.Array]") -> bytes:
        return encode_answer(served, results)

    def _rows(self, lines: Iterator[list[str]], width: int) -> Iterator[list[str]]:
        number = 0
        for cells in lines:
            if not cells and width > 1:
                continue
            number += 1
            check_size(number, width, self.max_values)
            # A blank line of a one-column file is that column's missing value.
            row = cells or [""]
            if len(row) != width:
                raise BadInput(f"row {number}: has {len(row)} values for {width} columns", row=number)
            yield row


def _as_quoted(text: str, delimiter: str, rows: list[list[str]]) -> list[list[str]]:
    """In columns of texts that the body quotes, where it does not quote everything, a cell without quotes is none of
    them: `NA` is a missing value there, as at upload."""
    written = [*quotes.records(text, delimiter)][1:]
    if list(map(len, written)) != list(map(len, rows)):
        return rows
    for number in quotes.quoted_columns(written, delimiter):
        for row, cells in zip(rows, written, strict=True):
            if not cells[number].startswith('"'):
                row[number] = "" if row[number].strip() in MISSING else row[number].strip()
    return rows


def encode_answer(served: Served, results: "Mapping[str, engines.Array]") -> bytes:
    """`schema.PredictResponse`: labels keep their type; an infinite or undefined number becomes null."""
    probabilities: list[dict[str, float]] | None = None
    if engines.PROBA in results and served.engine.classes is not None:
        keys = [as_key(label) for label in as_labels(served.engine.classes, served.version)]
        probabilities = [dict(zip(keys, row, strict=True)) for row in results[engines.PROBA].tolist()]
    answer = schema.PredictResponse(
        predictions=as_labels(results[engines.PREDICT].tolist(), served.version),
        model=served.model.name,
        version=served.version.version,
        engine=served.version.engine,
        probabilities=probabilities,
    )
    return msgspec.json.encode(answer)
