"""What goes into `training.ingest.ingest` and what comes out: structs without a heavy import, for the agent."""

import msgspec

from parvada.schema import DatasetDetail, Task

FORMATS = ("csv", "tsv", "csv.gz", "jsonl", "json", "parquet", "arrow")


class IngestOptions(msgspec.Struct, frozen=True):
    """What the uploader said; empty means "find out". `out_dir` must exist and receives the parts."""

    out_dir: str
    target: str = ""
    task: str = ""
    weight: str = ""
    group: str = ""
    drop: tuple[str, ...] = ()
    format: str = ""
    types: tuple[str, ...] = ()
    """`column:type`, see `training.asked_types`."""
    missing: tuple[str, ...] | None = None
    """The texts that stand for missing values, the empty one besides; None: the usual ones."""
    decimal: str = ""
    """`.` or `,`."""
    separator: str = ""
    """The character between two cells."""
    encoding: str = ""
    """Of a text file, by a name that Python knows; empty: UTF-8."""
    header: str = ""
    """`none`: the first line is data. Else it names the columns."""
    max_bytes: int = 4 << 30
    """Of the decompressed file."""
    room: int = 1 << 62
    """Bytes that may be written into `out_dir`; an OSError with ENOSPC if they do not do."""


class PartFile(msgspec.Struct, frozen=True):
    path: str
    rows: int
    bytes: int
    digest: str
    """SHA-256 of the file."""


class IngestResult(msgspec.Struct, frozen=True):
    digest: str
    rows: int
    bytes: int
    parts: tuple[PartFile, ...]
    target: str
    task: Task
    detail: DatasetDetail
