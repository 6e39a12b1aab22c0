"""How much memory an upload takes in a process of its own, for files that are made to take much."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.timeout(240)

BOUNDED = """
import sys
from training.ingest_worker import ingest
from training.upload import IngestOptions
import pyarrow as pa
pool = pa.default_memory_pool()
ingest(sys.argv[1], IngestOptions(out_dir=sys.argv[2], target="label"))
print(pool.max_memory())
"""
MOST_BYTES = 90 << 20
"""Of what Arrow holds at once, for any file; libraries and Python's own are some 50 MB beside."""


def long_texts_by_dictionary() -> pa.Table:
    """Half a megabyte as Parquet, 600 MB as rows."""
    texts = pa.array([f"word {number} " * 800 for number in range(20)])
    picked = pa.array(np.arange(90_000, dtype=np.int32) % 20)
    return pa.table({"text": pa.DictionaryArray.from_arrays(picked, texts), "label": picked})


def long_texts() -> pa.Table:
    """Each different: 250 MB in one row group."""
    tail = "x" * 5_000
    return pa.table({"text": [f"{number} {tail}" for number in range(50_000)], "label": range(50_000)})


def wide() -> pa.Table:
    """260 columns in one row group: 100 MB, of which a plain reader would hold all."""
    values = np.random.default_rng(0).normal(size=(260, 50_000))
    return pa.table({f"x.{number}": column for number, column in enumerate(values)} | {"label": np.arange(50_000) % 2})


@pytest.mark.parametrize("make", [long_texts_by_dictionary, long_texts, wide])
@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_memory_is_bounded_whatever_the_file(tmp_path: Path, make: Callable[[], pa.Table], kind: str) -> None:
    if kind == "parquet":
        pq.write_table(make(), tmp_path / "upload")
    else:
        plain = pa.table(
            {
                name: column.cast(_plain(column.type))
                for name, column in _columns(make().slice(0, 4_000 if make is wide else 20_000))
            }
        )
        pa_csv.write_csv(plain, tmp_path / "upload")
    (tmp_path / "out").mkdir()
    command = [sys.executable, "-c", BOUNDED, str(tmp_path / "upload"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 0 < int(done.stdout) < MOST_BYTES


def _columns(table: pa.Table) -> list[tuple[str, pa.ChunkedArray]]:
    return [(name, table.column(name)) for name in table.column_names]


def _plain(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_dictionary(kind) else kind
