"""Tables of any size, made while they are read: no file, and never the same value twice where it matters."""

import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pa_parquet

BLOCK_ROWS = 20_000
NUMBERS = 10
WORDS = np.array(["alder", "beech", "cedar", "dogwood", "elm", "fir", "ginkgo", "hazel"])
KINDS = ("csv", "parquet")


def block(number: int) -> pa.Table:
    """Rows `number * BLOCK_ROWS` and on: an id, numbers with all their digits, a category, a free text, two labels."""
    random = np.random.default_rng(number)
    values = random.normal(size=(NUMBERS, BLOCK_ROWS))
    columns: dict[str, object] = {"id": np.arange(number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS)}
    columns |= {f"x{index}": column for index, column in enumerate(values)}
    columns["tree"] = random.choice(WORDS, BLOCK_ROWS)
    columns["note"] = _notes(random)
    columns["label"] = np.where(values.sum(axis=0) > 0, "yes", "no")
    return pa.table(columns)


def _notes(random: np.random.Generator) -> pa.Array:
    words = pa.array(WORDS)
    picked = [words.take(pa.array(random.integers(0, len(WORDS), BLOCK_ROWS))) for _ in range(4)]
    number = pa.array(random.integers(0, 1 << 40, BLOCK_ROWS)).cast(pa.string())
    return pa.compute.binary_join_element_wise(*picked, number, " ")


def stream(size: int, kind: str = "csv", start: int = 0) -> Iterator[bytes]:
    """At least `size` bytes of one table, in pieces of some megabytes; another `start`, another table."""
    yield from _csv(size, start) if kind == "csv" else _parquet(size, start)


def _csv(size: int, start: int) -> Iterator[bytes]:
    sent, number = 0, start
    while sent < size:
        out = io.BytesIO()
        pa_csv.write_csv(block(number), out, pa_csv.WriteOptions(include_header=number == start))
        piece = out.getvalue()
        yield piece
        sent, number = sent + len(piece), number + 1


def _parquet(size: int, start: int) -> Iterator[bytes]:
    """One row group a million rows, as most writers make them."""
    out, sent, number = _Drain(), 0, start
    with pa_parquet.ParquetWriter(out, block(0).schema) as writer:
        while sent < size:
            group = pa.concat_tables([block(number + index) for index in range(50)])
            writer.write_table(group, row_group_size=group.num_rows)
            yield (piece := out.take())
            sent, number = sent + len(piece), number + 50
    yield out.take()


class _Drain(io.RawIOBase):
    """A file that is read away behind its writer."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]  # any buffer
        self._pieces.append(piece)
        self._position += len(piece)
        return len(piece)

    def take(self) -> bytes:
        taken, self._pieces = b"".join(self._pieces), []
        return taken
