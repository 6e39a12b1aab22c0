"""A stored part back into text: the first rows as JSON, or all of it as CSV. Runs in the workshop process."""

import json
import math
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
    """Write a Parquet part to `out` as CSV (quoted where needed), a few batches in memory."""
    with pq.ParquetFile(path) as file, Path(out).open("wb") as sink:
        options = pa_csv.WriteOptions(include_header=header, quoting_style="needed")
        with pa_csv.CSVWriter(sink, file.schema_arrow, write_options=options) as writer:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                writer.write_table(pa.Table.from_batches([batch]))


def _plain(value: object) -> object:
    """JSON has no NaN: a missing number is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
