"""Files as streams of Arrow batches, whatever their format: CSV, TSV, JSON lines or records, Parquet, Arrow IPC,
each plain or gzipped. Memory is bounded by a batch (JSON records: by `MAX_JSON_RECORDS`)."""

import gzip
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.ipc as pa_ipc

from parvada.columns import json_text
from parvada.nearest import known_are
from parvada.schema import Reading
from parvada.texts import MISSING, QUOTED, TEXT, TYPED, TYPED_VALUE
from training import dialect
from training.batches import BATCH_BYTES, batch_rows, first_line, pieces, too_large
from training.errors import BadData, BadRequest
from training.guess import EVERYTHING
from training.index_columns import of_pandas
from training.parquet import ParquetSource
from training.parts import check_room
from training.text_form import AS_IT_LOOKS, TextForm, in_utf8
from training.upload import FORMATS

BLOCK_BYTES = 2 << 20
MAX_JSON_RECORDS = 256 << 20
"""A JSON array must be read whole; larger ones are asked for as JSON lines."""
_COPY_BYTES = 1 << 20
_BINARY = (b"PAR1", b"ARROW1", b"\xff\xff\xff\xff")
_VALUE = msgspec.structs.replace(TYPED_VALUE, mixed=True)
"""Of a column of JSON numbers or booleans, which may become labels: by its uploader's word, or beyond 64 bits."""


class Source(Protocol):
    """A table that can be read more than once."""

    names: tuple[str, ...]
    index: tuple[str, ...] = ()
    """Those that the file's writer calls an index without a name."""
    nameless: frozenset[str] = frozenset()
    """Those that got their names here."""
    quoted: frozenset[str] = frozenset()
    """Those whose texts are quoted where numbers are not: what stands in quotes is no missing value."""

    def texts(self, name: str) -> tuple[frozenset[str], Reading]:
        """Of a column of strings: the types that its texts may turn out to be, and how they are read."""
        ...

    def batches(self, unused: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
        """Nobody reads the columns `unused`, so their values may be anything. Raises BadData: the file is malformed."""
        ...

    def line(self, row: int) -> int:
        """The line (text formats) or row number (others) of row `row`, counted from 0; the result counts from 1."""
        ...


def open_source(
    path: Path, format_name: str, work: Path, max_bytes: int, room: int = 1 << 62, form: TextForm = AS_IT_LOOKS
) -> tuple[Source, str]:
    """The source and the name of its format. `work`: a folder for the decompressed copy of a gzipped file, for a copy
    in UTF-8, and for what is read of a wide one, which may take `room` bytes.

    Raises:
        OSError: no room.
        BadRequest: unknown format.
        BadData: the file cannot be read as a table, or decompresses to more than `max_bytes`.
    """
    if format_name and format_name not in FORMATS:
        raise BadRequest(
            "unknown_format",
            f"format {format_name!r} is not known{known_are(format_name, FORMATS)}",
            {"allowed": list(FORMATS)},
        )
    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"\x1f\x8b"):
        if path.name.endswith(".plain.plain"):  # once by the sender's tool, once by HTTP: the rest is an attack
            raise BadData("not_a_table", "the file is gzipped more than twice")
        path = _decompress(path, work / f"{path.name}.plain", max_bytes, room)
        inner, found = open_source(path, "" if format_name == "csv.gz" else format_name, work, max_bytes, room, form)
        return inner, "csv.gz" if found == "csv" else found
    if format_name == "csv.gz":
        raise BadData("not_a_table", "the file is not gzipped, as format csv.gz says")
    form.check()
    if form.encoding and not head.startswith(_BINARY):
        path = in_utf8(path, work / f"{path.name}.utf8", form.encoding, room)
        with path.open("rb") as file:
            head = file.read(64)
    found = format_name or _detect(head)
    if found in ("parquet", "arrow"):
        form.of_no_use(found)
    return _open(path, found, max_bytes, work, room, form), found


def _open(path: Path, found: str, max_bytes: int, work: Path, room: int, form: TextForm) -> Source:
    try:
        if found == "parquet":
            return ParquetSource(path, max_bytes, work, room)
        if found == "arrow":
            return ArrowSource(path, max_bytes)
        if found in ("json", "jsonl"):
            return JsonSource(path, lines=found == "jsonl")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise BadData("not_a_table", f"the file cannot be read as {found}: {first_line(error)}") from error
    delimiter = form.separator or ("\t" if found == "tsv" else None)
    missing = MISSING if form.missing is None else form.missing
    return CsvSource(path, delimiter, headed=form.header != "none", missing=missing)


def _detect(head: bytes) -> str:
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(_BINARY):
        return "arrow"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return {b"[": "json", b"{": "jsonl"}.get(start, "csv")


def _decompress(path: Path, to: Path, max_bytes: int, room: int) -> Path:
    written = 0
    try:
        with gzip.open(path) as source, to.open("wb") as target:
            while chunk := source.read(_COPY_BYTES):
                written += len(chunk)
                if written > max_bytes:
                    raise too_large(max_bytes)
                check_room(written, room)
                target.write(chunk)
    except (OSError, EOFError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the file's: is it full?
            raise
        raise BadData("not_a_table", f"the gzip file is damaged: {first_line(error)}") from error
    return to


class CsvSource(Source):
    """Text with a delimiter, read by pyarrow; when that fails, read again slowly to say on which line."""

    def __init__(
        self, path: Path, delimiter: str | None, *, headed: bool = True, missing: Collection[str] = MISSING
    ) -> None:
        """`missing`: the texts that stand for missing values."""
        self._path = path
        self._missing = missing
        self._dialect = dialect.sniff(path, delimiter, headed=headed)
        self.names = self._dialect.header
        self.nameless = self._dialect.nameless
        self.delimiter = self._dialect.delimiter
        self.quoted = dialect.quoted_columns(path, self._dialect)

    def texts(self, name: str) -> tuple[frozenset[str], Reading]:
        # Neither JSON nor CSV has dates of its own: also where texts are quoted, dates are.
        return (frozenset({"datetime"}), QUOTED) if name in self.quoted else (EVERYTHING, TEXT)

    def batches(self, unused: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
        try:
            # Mapped: the reader reads 32 blocks ahead, which then are page cache and not memory of this process.
            with (
                pa.memory_map(str(self._path)) as file,
                pa_csv.open_csv(
                    file,
                    read_options=pa_csv.ReadOptions(
                        use_threads=False,
                        block_size=BLOCK_BYTES,
                        column_names=list(self.names),
                        skip_rows=self._dialect.header_lines,
                    ),
                    parse_options=pa_csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
                    convert_options=pa_csv.ConvertOptions(
                        column_types=dict.fromkeys(self.names, pa.string()),
                        check_utf8=True,
                        # A quoted NA is a text, and one without quotes a missing value, where quotes say anything.
                        strings_can_be_null=bool(self.quoted),
                        null_values=sorted({*self._missing} - {""}),
                        quoted_strings_can_be_null=False,
                    ),
                ) as reader,
            ):
                last = None
                for last in reader:
                    yield last
            # A quote that is never closed swallows the rest of the file into its last cell.
            swallowed = last is not None and any("\n" in (c[-1].as_py() or "") for c in last.columns if len(c))
            if swallowed and (found := dialect.malformed(self._path, self._dialect)):
                raise found
        except pa.ArrowInvalid as error:
            found = dialect.malformed(self._path, self._dialect)
            raise found or BadData("not_a_table", f"the file cannot be read as CSV: {first_line(error)}") from error

    def line(self, row: int) -> int:
        return dialect.line_of(self._path, self._dialect, row)


class JsonSource(Source):
    """Objects, one a line or in one array. Values are laid down as texts, and are what they are in JSON: a string is
    never a number, however it looks."""

    def __init__(self, path: Path, *, lines: bool) -> None:
        self._path = path
        self._lines = lines
        if not lines and path.stat().st_size > MAX_JSON_RECORDS:
            raise BadData("too_large", f"a JSON array of more than {MAX_JSON_RECORDS} bytes: send it as JSON lines")
        self._types: dict[str, set[type]] = {}
        for _, record in self._records():
            for name, value in record.items():
                self._types.setdefault(name, set()).add(type(value))
            if len(self._types) > dialect.MAX_COLUMNS:
                break
        if not self._types:
            raise BadData("empty_file", "there are no records: objects with one key a column were expected")
        self.names = tuple(self._types)
        dialect.check_names(self.names)

    def texts(self, name: str) -> tuple[frozenset[str], Reading]:
        found = self._types[name] - {type(None)}
        if found == {bool}:
            return frozenset({"boolean"}), _VALUE
        if found == {int}:
            return frozenset({"integer", "number"}), _VALUE
        if found <= {int, float}:
            return frozenset({"number"}), _VALUE
        if found == {str}:
            return frozenset({"datetime"}), TYPED  # JSON has no dates of its own
        return frozenset(), msgspec.structs.replace(TYPED, mixed=True)

    def batches(self, unused: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
        rows: list[list[str | None]] = []
        unused = frozenset(unused)
        most, gathered = batch_rows(len(self.names), 0), 0
        for line, record in self._records():
            row = [None if name in unused else _as_text(record.get(name), name, line) for name in self.names]
            rows.append(row)
            gathered += sum(map(len, filter(None, row)))
            if len(rows) >= most or gathered > BATCH_BYTES:
                yield self._batch(rows)
                rows, gathered = [], 0
        if rows:
            yield self._batch(rows)

    def _batch(self, rows: list[list[str | None]]) -> pa.RecordBatch:
        columns = [pa.array(values, pa.string()) for values in zip(*rows, strict=True)]
        return pa.record_batch(columns, names=list(self.names))

    def _records(self) -> Iterator[tuple[int, dict[str, Any]]]:
        if self._lines:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        yield number, self._object(msgspec.Raw(line.removeprefix(b"\xef\xbb\xbf")), number)
            return
        try:
            raws = msgspec.json.decode(self._path.read_bytes().removeprefix(b"\xef\xbb\xbf"), type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadData("not_a_table", f"this is not a JSON array of objects: {first_line(error)}") from error
        for number, raw in enumerate(raws, 1):
            yield number, self._object(raw, number)

    def _object(self, raw: msgspec.Raw, number: int) -> dict[str, Any]:
        try:
            return msgspec.json.decode(raw, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            where = f"{'line' if self._lines else 'record'} {number}"
            raise BadData("not_a_table", f"{where} is not a JSON object: {error}", {"row": number}) from error

    def line(self, row: int) -> int:
        for index, (line, _) in enumerate(self._records()):
            if index == row:
                return line
        return row + 1


def _as_text(value: object, name: str, line: int) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, int, float)):
        return json_text(value)
    message = f"column {name!r}, row {line}: nested values are not supported"
    raise BadData("unsupported_type", message, {"column": name, "row": line})


class ArrowSource(Source):
    """Arrow IPC: the file or the stream format."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        with path.open("rb") as file:
            self._stream = file.read(6) != b"ARROW1"
        with pa.OSFile(str(path)) as file:
            opened = pa_ipc.open_stream(file) if self._stream else pa_ipc.open_file(file)
            self.names = tuple(opened.schema.names)
            self.index = of_pandas(opened.schema.metadata)
        dialect.check_names(self.names)

    def texts(self, name: str) -> tuple[frozenset[str], Reading]:
        return frozenset(), TYPED

    def batches(self, unused: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
        size = 0
        try:
            # Mapped: a batch that is not compressed is page cache, however large its writer made it.
            with pa.memory_map(str(self._path)) as file:
                for batch in self._read(file):
                    size += batch.nbytes
                    if size > self._max_bytes:
                        raise too_large(self._max_bytes)
                    yield from pieces(batch)
        except (pa.ArrowException, OSError) as error:
            raise BadData("not_a_table", f"the Arrow file is damaged: {first_line(error)}") from error

    def _read(self, file: pa.NativeFile) -> Iterator[pa.RecordBatch]:
        if self._stream:
            yield from pa_ipc.open_stream(file)
            return
        reader = pa_ipc.open_file(file)
        for index in range(reader.num_record_batches):
            yield reader.get_batch(index)

    def line(self, row: int) -> int:
        return row + 1
