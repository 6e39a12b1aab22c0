"""Stored parts given back: the first rows as JSON, or all of them as CSV or Parquet. Runs in the workshop process."""

import csv
import io
import json
import math
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

BATCH_ROWS = 50_000


def preview(path: str, rows: int) -> bytes:
    """UTF-8 JSON `{"columns": […], "rows": [{…}]}` of the first `rows` rows of a Parquet part."""
    with pq.ParquetFile(path) as file:
        first = next(file.iter_batches(batch_size=rows), None)
        names = file.schema_arrow.names
    shown = [] if first is None else [{key: _plain(value) for key, value in row.items()} for row in first.to_pylist()]
    return json.dumps({"columns": names, "rows": shown}, default=str, allow_nan=False).encode()


def to_csv(path: str, out: str, header: bool) -> None:
    """Write a Parquet part to `out` as CSV, a few batches in memory. Texts are in quotes and nothing else is, names
    only where they need it, so that who reads the file knows the text `10001` from the number."""
    with pq.ParquetFile(path) as file, Path(out).open("wb") as sink:
        if header:
            sink.write(_header(file.schema_arrow.names))
        options = pa_csv.WriteOptions(include_header=False, quoting_style="needed")
        with pa_csv.CSVWriter(sink, file.schema_arrow, write_options=options) as writer:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                writer.write_table(pa.Table.from_batches([batch]))


def to_parquet(paths: Sequence[str], out: str) -> None:
    """Write the Parquet parts of one dataset to `out` as one file, a row group in memory."""
    with pq.ParquetFile(paths[0]) as first:
        schema = first.schema_arrow
    with pq.ParquetWriter(out, schema, compression="zstd", version="2.6", store_schema=True) as writer:
        for path in paths:
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    writer.write_table(file.read_row_group(group, use_threads=False))


def _header(names: Sequence[str]) -> bytes:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(names)
    return line.getvalue().encode()


def _plain(value: object) -> object:
    """JSON has no NaN: a missing number is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
