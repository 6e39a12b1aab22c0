"""What the quotes of a text file say: a writer that quotes its texts and nothing else tells which columns are texts."""

import re
from collections.abc import Iterator
from pathlib import Path

from parvada.texts import MISSING

SAMPLE_BYTES = 256 << 10


def quoted_columns(path: Path, delimiter: str, width: int, skip: int) -> frozenset[int]:
    """The numbers of the columns, counted from 0, whose values are all quoted, some of them without need, in a file
    that does not quote everything. By the beginning of the file; the first `skip` records are no data."""
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
        more = bool(file.read(1))
    if b'"' not in sample:
        return frozenset()
    records = [record for record in _records(sample.decode("utf-8-sig", "replace"), delimiter) if record != [""]]
    if more:
        records = records[:-1]
    bare, needless = set[int](), set[int]()
    for record in records[skip:]:
        if len(record) != width:
            return frozenset()
        for number, cell in enumerate(record):
            if not cell.startswith('"'):
                if cell.strip() not in MISSING:
                    bare.add(number)
            elif len(cell) > 2 and not _needs_quotes(cell[1:-1], delimiter):
                needless.add(number)
    return frozenset(needless - bare) if bare else frozenset()


def _needs_quotes(value: str, delimiter: str) -> bool:
    return any(each in value for each in (delimiter, '"', "\n", "\r"))


def _records(text: str, delimiter: str) -> Iterator[list[str]]:
    """The cells as they are written, with their quotes."""
    end = re.escape(delimiter)
    cell = re.compile(rf'("(?:[^"]|"")*"|[^{end}\r\n]*)({end}|\r\n|\n|\r|\Z)')
    record: list[str] = []
    at = 0
    while at < len(text):
        found = cell.match(text, at)
        if found is None:  # a quote that is not closed, or something behind one
            return
        record.append(found[1])
        at = found.end()
        if found[2] != delimiter:
            yield record
            record = []
