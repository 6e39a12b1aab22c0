"""Parquet files as streams of batches in bounded memory, however wide they are and however they were written."""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as pa_ipc
import pyarrow.parquet as pa_parquet

from parvada.schema import Reading
from parvada.texts import TYPED
from training import dialect
from training.batches import batch_rows, first_line, too_large
from training.errors import BadData
from training.index_columns import of_pandas
from training.parts import check_room

PROBE_ROWS = 64
PAGE_BYTES = 2 << 20
"""What a column holds while it is read, unless all of it is smaller: a page of values and its dictionary, each decoded,
as the usual writers cut them."""
AT_ONCE_BYTES = 32 << 20
"""Of columns that are read together."""


class ParquetSource:
    """A `training.sources.Source`. The columns of a row group lie one behind another, so reading rows means to hold
    a page of every column. Where that is too much, some columns at a time are laid down in a file that is mapped."""

    def __init__(self, path: Path, max_bytes: int, work: Path, room: int = 1 << 62) -> None:
        """`work`: a folder for what is laid down, which may take `room` bytes."""
        self._path, self._work, self._room = path, work, room
        self.nameless = self.quoted = frozenset[str]()
        with pa_parquet.ParquetFile(path) as file:
            meta = file.metadata
            self.names = tuple(file.schema_arrow.names)
            self.index = of_pandas(file.schema_arrow.metadata)
            size = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            if max(size, meta.num_rows * len(self.names)) > max_bytes:
                raise too_large(max_bytes)
        dialect.check_names(self.names)
        self._row_bytes = size // max(1, meta.num_rows)

    def texts(self, name: str) -> tuple[frozenset[str], Reading]:
        return frozenset(), TYPED

    def batches(self, unused: Collection[str] = ()) -> Iterator[pa.RecordBatch]:
        try:
            with pa_parquet.ParquetFile(self._path, memory_map=True) as file:
                for group in range(file.num_row_groups):
                    yield from self._group(file, group)
        except (pa.ArrowException, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the file's: is it full?
                raise
            raise BadData("not_a_table", f"the Parquet file is damaged: {first_line(error)}") from error

    def line(self, row: int) -> int:
        return row + 1

    def _group(self, file: pa_parquet.ParquetFile, group: int) -> Iterator[pa.RecordBatch]:
        bands = _bands(self.names, _held(file.metadata.row_group(group)))
        rows = self._batch_rows(file, group, bands)
        if len(bands) == 1:
            yield from file.iter_batches(rows, [group], use_threads=False)
            return
        paths = [self._work / f"band-{number:04d}.arrow" for number in range(len(bands))]
        try:
            room = self._room
            for path, band in zip(paths, bands, strict=True):
                room -= self._lay_down(file, group, rows, band, path, room)
            yield from _side_by_side(paths)
        finally:
            for path in paths:
                path.unlink(missing_ok=True)

    def _batch_rows(self, file: pa_parquet.ParquetFile, group: int, bands: Sequence[Sequence[str]]) -> int:
        """By what its first rows really take: as it is stored, a text that comes again and again counts once."""
        found = 0
        for band in bands:
            first = next(file.iter_batches(PROBE_ROWS, [group], columns=list(band), use_threads=False), None)
            found += first.nbytes // max(1, first.num_rows) if first is not None else 0
        return batch_rows(len(self.names), max(found, self._row_bytes))

    def _lay_down(
        self, file: pa_parquet.ParquetFile, group: int, rows: int, band: Sequence[str], path: Path, room: int
    ) -> int:
        """Write the batches of some columns to `path`; returns its bytes. Raises OSError: no room."""
        with pa.OSFile(str(path), "wb") as sink:
            schema = pa.schema([file.schema_arrow.field(name) for name in band])
            with pa_ipc.new_file(sink, schema) as writer:
                for batch in file.iter_batches(rows, [group], columns=list(band), use_threads=False):
                    writer.write_batch(batch.select(list(band)))  # of "x" it also gives "x.1"
                    check_room(sink.tell(), room)
        pa.default_memory_pool().release_unused()
        return path.stat().st_size


def _held(group: pa_parquet.RowGroupMetaData) -> dict[str, int]:
    """Bytes that each column (by the name of its root) takes while it is read."""
    held: dict[str, int] = {}
    for index in range(group.num_columns):
        column = group.column(index)
        root = column.path_in_schema.split(".", 1)[0]
        held[root] = held.get(root, 0) + min(PAGE_BYTES, column.total_uncompressed_size)
    return held


def _bands(names: Sequence[str], held: dict[str, int]) -> list[list[str]]:
    """The columns in their order, as many together as may be read at once."""
    bands: list[list[str]] = [[]]
    size = 0
    for name in names:
        size += held.get(name, PAGE_BYTES)
        if bands[-1] and size > AT_ONCE_BYTES:
            bands.append([])
            size = held.get(name, PAGE_BYTES)
        bands[-1].append(name)
    return bands


def _side_by_side(paths: Sequence[Path]) -> Iterator[pa.RecordBatch]:
    """The batches of all files, each with the columns of all."""
    with contextlib.ExitStack() as stack:
        readers = [pa_ipc.open_file(stack.enter_context(pa.memory_map(str(path)))) for path in paths]
        for index in range(readers[0].num_record_batches):
            parts = [reader.get_batch(index) for reader in readers]
            columns = [column for part in parts for column in part.columns]
            yield pa.record_batch(columns, schema=pa.schema([field for part in parts for field in part.schema]))
