"""Tables as text: which character stands between the cells. One rule for uploads and for requests."""

import csv
import io
import itertools
import re
from collections import Counter

DELIMITERS = ",;\t|"
SAMPLE_CHARACTERS = 1 << 16
_SAMPLE_RECORDS = 50


_TOLD = re.compile(r'\ufeff?"?sep=(.)"?(\r\n|\n|\r)')


def told_delimiter(text: str) -> str | None:
    """What Excel writes into the first line of some files, which is no data: `sep=;`."""
    found = _TOLD.match(text)
    return found[1] if found is not None else None


def without_told(text: str) -> str:
    """The text from the line behind that word on."""
    found = _TOLD.match(text)
    return text[found.end() :] if found is not None else text


def delimiter_of(text: str) -> str | None:
    """The delimiter that splits the first records most evenly and, then, most often; None if none splits the header."""
    sample = text[:SAMPLE_CHARACTERS]
    if len(text) > SAMPLE_CHARACTERS:
        sample = sample[: sample.rfind("\n") + 1] or sample
    scores = {delimiter: _score(sample, delimiter) for delimiter in DELIMITERS}
    best = max(DELIMITERS, key=scores.__getitem__)
    return best if scores[best][1] else None


def _score(sample: str, delimiter: str) -> tuple[float, int]:
    """(how even, cells of the header)"""
    records = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
    filled = (record for record in records if any(cell.strip() for cell in record))
    widths = [len(record) for record in itertools.islice(filled, _SAMPLE_RECORDS)]
    if not widths or widths[0] < 2:
        return 0.0, 0
    width, times = Counter(widths).most_common(1)[0]
    return (times / len(widths) if width > 1 else 0.01), widths[0]
