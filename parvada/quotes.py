"""What the quotes of a text table say: a writer that quotes its texts and nothing else tells which columns are texts.
One rule for uploads and for requests."""

import re
from collections.abc import Iterator, Sequence

from parvada.texts import MISSING


def quoted_columns(rows: Sequence[Sequence[str]], delimiter: str) -> frozenset[int]:
    """The numbers of the columns, counted from 0, whose values are all quoted, some of them without need, where not
    everything is quoted. `rows`: the cells as they are written (see `records`), as many in each row."""
    bare, needless = set[int](), set[int]()
    for row in rows:
        for number, cell in enumerate(row):
            if not cell.startswith('"'):
                if cell.strip() not in MISSING:
                    bare.add(number)
            elif len(cell) > 2 and not _needs_quotes(cell[1:-1], delimiter):
                needless.add(number)
    return frozenset(needless - bare) if bare else frozenset()


def _needs_quotes(value: str, delimiter: str) -> bool:
    return any(each in value for each in (delimiter, '"', "\n", "\r"))


def records(text: str, delimiter: str) -> Iterator[list[str]]:
    """The cells as they are written, with their quotes; blank lines left out. Ends before a quote left open."""
    end = re.escape(delimiter)
    cell = re.compile(rf'("(?:[^"]|"")*"|(?!")[^{end}\r\n]*)({end}|\r\n|\n|\r|\Z)')
    record: list[str] = []
    at = 0
    while at < len(text):
        found = cell.match(text, at)
        if found is None:  # a quote that is not closed, or something behind one
            return
        record.append(found[1])
        at = found.end()
        if found[2] != delimiter:
            if record != [""]:
                yield record
            record = []
