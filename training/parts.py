"""Writes a dataset as Parquet files whose bytes depend on the content alone, however the batches arrived."""

import errno
import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pa_parquet

from training.upload import PartFile

PART_ROWS = 500_000
PART_BYTES = 48 << 20
"""A part ends with the row group that passes this; with `_GROUP_VALUES` that keeps it below 64 MiB."""
_GROUP_ROWS, _GROUP_VALUES, _GROUP_BYTES = 1 << 16, 1 << 21, 16 << 20
"""The most that a row group has of each; with long texts its last row may pass the third."""
_VALUE_BYTES = 8
"""Of a value that is no text, whatever its type: close enough, and the same however it is held in memory."""


class PartWriter:
    """Cuts the stream of batches into row groups, by the content of their rows alone, and those into parts."""

    def __init__(self, folder: Path, schema: pa.Schema, room: int) -> None:
        """`room`: bytes that the parts may take together."""
        self._folder = folder
        self._room = room
        self._schema = schema
        self._group = max(1_024, min(_GROUP_ROWS, _GROUP_VALUES // max(1, len(schema))))
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        self._writer: pa_parquet.ParquetWriter | None = None
        self._sink: pa.NativeFile | None = None
        self._path = folder
        self._rows = 0
        self._parts: list[PartFile] = []

    def write(self, batch: pa.RecordBatch) -> None:
        while batch.num_rows:
            fitting = self._fitting(batch)
            self._waiting.append(fitting)
            self._waiting_rows += fitting.num_rows
            batch = batch.slice(fitting.num_rows)
            if self._waiting_rows == self._group or self._waiting_bytes >= _GROUP_BYTES:
                self._write_group(self._take_group())

    def _fitting(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The first rows, as many as the present group still takes; they are counted as waiting."""
        batch = batch.slice(0, self._group - self._waiting_rows)
        size = pc.sum(_row_bytes(batch)).as_py()
        if self._waiting_bytes + size > _GROUP_BYTES:
            reached = pc.cumulative_sum(_row_bytes(batch))
            full = pc.index(pc.greater_equal(reached, _GROUP_BYTES - self._waiting_bytes), True).as_py()
            batch, size = batch.slice(0, full + 1), reached[full].as_py()
        self._waiting_bytes += size
        return batch

    def close(self) -> tuple[PartFile, ...]:
        """The parts in order. The files are complete, not yet synced: the blob store does that."""
        if self._waiting_rows:
            self._write_group(self._take_group())
        self._end_part()
        return tuple(self._parts)

    def _take_group(self) -> pa.Table:
        """All that waits, in one piece each column. What it was gathered in is let go before it is written."""
        waiting = pa.Table.from_batches(self._waiting, self._schema)
        self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0
        return waiting.combine_chunks()

    def _write_group(self, table: pa.Table) -> None:
        if self._writer is None:
            self._path = self._folder / f"part-{len(self._parts):05d}.parquet"
            self._sink = pa.OSFile(str(self._path), "wb")
            self._writer = pa_parquet.ParquetWriter(
                self._sink, self._schema, compression="zstd", version="2.6", store_schema=True
            )
        self._writer.write_table(table, row_group_size=self._group)
        pa.default_memory_pool().release_unused()  # else what one group needed is kept beside what the next one needs
        self._rows += table.num_rows
        if self._sink is not None:
            check_room(self._sink.tell(), self._room)
        if self._rows + self._group > PART_ROWS or (self._sink is not None and self._sink.tell() >= PART_BYTES):
            self._end_part()

    def _end_part(self) -> None:
        if self._writer is None or self._sink is None:
            return
        self._writer.close()
        self._sink.close()
        with self._path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._parts.append(PartFile(str(self._path), self._rows, self._path.stat().st_size, digest))
        self._room -= self._parts[-1].bytes
        check_room(0, self._room)
        self._writer = self._sink = None
        self._rows = 0


def _row_bytes(batch: pa.RecordBatch) -> pa.Array:
    """Of each row (int64): its texts by their UTF-8 bytes."""
    texts = [column for column in batch.columns if pa.types.is_string(column.type)]
    sizes = pa.repeat(pa.scalar(_VALUE_BYTES * batch.num_columns, pa.int64()), batch.num_rows)
    for column in texts:
        sizes = pc.add(sizes, pc.fill_null(pc.binary_length(column), 0))
    return sizes


def check_room(size: int, room: int) -> None:
    """Raises OSError as a full disk would, before it is: the rest belongs to others."""
    if size > room:
        raise OSError(errno.ENOSPC, "the room for this dataset is used up")


def dataset_digest(parts: Sequence[PartFile], weight: str = "", group: str = "") -> str:
    """Names the content of a dataset: the same columns and rows in the same roles, the same digest."""
    roles = "".join(f"{role} {name}\n" for role, name in (("weight", weight), ("group", group)) if name)
    text = "parvada-dataset-1\n" + roles + "".join(f"{part.digest}\n" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()
