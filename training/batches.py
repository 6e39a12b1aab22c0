"""What bounds the memory of one batch of rows, whatever the file; and how a file that cannot be read is refused."""

from collections.abc import Iterator

import pyarrow as pa

from training.errors import BadData

BATCH_ROWS, BATCH_VALUES, BATCH_BYTES = 1 << 16, 1 << 18, 4 << 20
"""The most that one batch has of each; bytes by the file's own word, or an average."""


def batch_rows(columns: int, row_bytes: int) -> int:
    """So many rows make a batch of bounded memory."""
    return max(1, min(BATCH_ROWS, BATCH_VALUES // max(1, columns), BATCH_BYTES // max(1, row_bytes)))


def pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of bounded memory, without a copy."""
    rows = batch_rows(batch.num_columns, batch.nbytes // max(1, batch.num_rows))
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


def too_large(max_bytes: int) -> BadData:
    return BadData("too_large", f"the file decompresses to more than {max_bytes} bytes")


def first_line(error: Exception) -> str:
    """Of a library's message, for people."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
