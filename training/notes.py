"""The notes of a dataset: few enough to be read, each with its line."""

from collections import Counter
from collections.abc import Callable, Iterable

import msgspec

from parvada.schema import Note

MOST_OF_A_KIND = 20
NOT_A_VALUE = "not_a_value"
"""Code of the note on texts that count as missing because they do not fit the others."""
ABOUT_FEATURES = ("row_numbers", "unique_per_row")
"""Codes of notes that say nothing of a target."""
ABOUT_TARGETS = ("unique_target", "target_quantities")
"""And of those that say nothing of a feature."""


def located(notes: Iterable[Note], line_of: Callable[[int], int]) -> list[Note]:
    """The notes with lines in the place of rows (counted from 0); of many of one code the first ones, and how many
    more there are."""
    kept: list[Note] = []
    seen = Counter[str]()
    for note in notes:
        seen[note.code] += 1
        if seen[note.code] > MOST_OF_A_KIND:
            continue
        if note.line is None:
            kept.append(note)
            continue
        line = line_of(note.line)
        where = "line" if (note.count or 1) == 1 else "first in line"
        kept.append(msgspec.structs.replace(note, line=line, message=f"{note.message} ({where} {line})"))
    for code, count in seen.items():
        if count > MOST_OF_A_KIND:
            more = count - MOST_OF_A_KIND
            kept.append(Note(code=code, message=f"and {more} more columns have a note {code!r}", count=more))
    return kept
