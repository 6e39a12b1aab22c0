"""How a text table is written: encoding, delimiter, header; and, when it is malformed, on which line.

The fast reader (pyarrow) only says that something is wrong; this module finds where, in lines that count from 1.
"""

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from parvada import quotes
from parvada.delimited import delimiter_of, told_delimiter
from parvada.names import folded, header_names
from training.errors import BadData

MAX_COLUMNS = 2_000
"""So that a dataset's description stays far below the 1 MiB of one log entry."""
_MAX_CELL = 1 << 20
_QUOTED_SAMPLE = 256 << 10
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
"""Control characters other than white space, and halves of characters."""


class Dialect(msgspec.Struct, frozen=True):
    delimiter: str
    header: tuple[str, ...]
    header_lines: int
    """Physical lines up to the end of the header, blank lines before it included; 0 if there is none."""
    bom: bool
    nameless: frozenset[str] = frozenset()
    """Columns whose cell of the header is blank."""
    told: bool = False
    """The first line is Excel's word on the delimiter: `sep=;`."""


def sniff(path: Path, delimiter: str | None = None, *, headed: bool = True) -> Dialect:
    """Read the header of a UTF-8 text table; the delimiter is the one that splits the first lines most evenly. A table
    that is not `headed` has columns `column_1` and so on.

    Raises:
        BadData: empty_file, not_a_table, encoding, duplicate_column, no_header, too_many_columns, header_only.
    """
    head = _read_head(path)
    sample = _decode_head(path, head)
    if not sample.strip():
        raise BadData("empty_file", "the file is empty: a header line and rows were expected")
    told = told_delimiter(sample)
    found = delimiter or told or _delimiter(sample)
    first, line_number = _first_record(path, found, headed=headed, told=told is not None)
    bom = head.startswith(b"\xef\xbb\xbf")
    if not headed:
        names = header_names([""] * len(first))
        check_names(names)
        return Dialect(found, names, int(told is not None), bom, told=told is not None)
    names = _checked_header(first)
    nameless = frozenset(name for name, cell in zip(names, first, strict=True) if not folded(cell))
    return Dialect(found, names, line_number, bom, nameless, told is not None)


def _read_head(path: Path) -> bytes:
    with path.open("rb") as file:
        head = file.read(1 << 16)
    if not head.strip():
        raise BadData("empty_file", "the file is empty: a header line and rows were expected")
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            raise BadData("not_a_table", f"this is {name}, not a table that can be read (CSV, Parquet, JSON, Arrow)")
    if b"\x00" in head:
        raise BadData("not_a_table", "the file is binary: CSV, CSV.gz, TSV, Parquet, JSON lines or Arrow were expected")
    return head


_MAGIC = {
    b"PK\x03\x04": "a zip or Excel file",
    b"%PDF": "a PDF",
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x7fELF": "a program",
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"\xff\xfe": "text in UTF-16 (save it as UTF-8, or say encoding=utf-16)",
    b"\xfe\xff": "text in UTF-16 (save it as UTF-8, or say encoding=utf-16)",
    b"\xd0\xcf\x11\xe0": "an old Excel or Word file",
}


def _decode_head(path: Path, head: bytes) -> str:
    whole = len(head) < 1 << 16
    cut = head if whole else head[: head.rfind(b"\n") + 1] or head[:-4]
    try:
        return cut.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise encoding_error(path) or BadData("encoding", "the file is not UTF-8") from None


def encoding_error(path: Path) -> BadData | None:
    """The first line that is not UTF-8, with a guess at what it is; None if all are."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                guess = line[max(0, error.start - 20) : error.start + 20].decode("latin-1").strip()
                return BadData(
                    "encoding",
                    f"line {number}: byte 0x{byte:02X} is not UTF-8 (as Latin-1 it would read {guess!r}): "
                    "save the file as UTF-8, or say encoding=",
                    {"row": number},
                )
    return None


def _delimiter(sample: str) -> str:
    found = delimiter_of(sample)
    if found is None:
        first = next(line for line in sample.splitlines() if line.strip())
        raise BadData(
            "not_a_table",
            f"only one column was found (first line: {first[:60]!r}): a table of at least two columns, "
            "separated by comma, semicolon, tab or |, was expected",
        )
    return found


def _first_record(path: Path, delimiter: str, *, headed: bool, told: bool) -> tuple[list[str], int]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        if told:
            file.readline()
        reader = csv.reader(_bounded(file), delimiter=delimiter)
        try:
            header = next(record for record in reader if record)
            line_number = reader.line_num + told
            if headed and not any(record for record in reader if record and any(cell.strip() for cell in record)):
                raise BadData("header_only", "the file has a header and no rows")
        except StopIteration:
            raise BadData("empty_file", "the file is empty: a header line and rows were expected") from None
        except csv.Error as error:
            raise BadData("not_a_table", f"line {reader.line_num}: {error}", {"row": reader.line_num}) from None
        except UnicodeDecodeError:
            raise encoding_error(path) or BadData("encoding", "the file is not UTF-8") from None
    return header, line_number


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    """A "line" of hundreds of megabytes must not fill the memory: the reader's own limit is on cells."""
    csv.field_size_limit(_MAX_CELL)
    yield from lines


def _checked_header(cells: list[str]) -> tuple[str, ...]:
    names = header_names(cells)
    if any("." in name and _is_number(name) for name in names):
        raise BadData(
            "no_header",
            f"the first line looks like data, not column names (if it is, say header=none): {', '.join(names[:5])}",
        )
    check_names(names)
    return names


def check_names(names: tuple[str, ...]) -> None:
    """Raises BadData: duplicate_column, too_many_columns, not_a_table (a name too long, or with what is no text)."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        places = [number for number, name in enumerate(names, 1) if name == twice[0]]
        raise BadData(
            "duplicate_column",
            f"the column {twice[0]!r} appears {len(places)} times (columns {', '.join(map(str, places))})",
            {"column": twice[0]},
        )
    if len(names) > MAX_COLUMNS:
        raise BadData("too_many_columns", f"{len(names)} columns; at most {MAX_COLUMNS} are supported")
    for number, name in enumerate(names, 1):
        if len(name) > 256 or _CONTROLS.search(name):
            raise BadData(
                "not_a_table",
                f"column {number} is named {name[:40]!r}: a name has at most 256 characters, and none that controls a "
                "device; this does not look like a table's header",
                {"column": number},
            )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def quoted_columns(path: Path, dialect: Dialect) -> frozenset[str]:
    """The columns of texts, as far as the quotes at the beginning of the file tell (see `parvada.quotes`)."""
    with path.open("rb") as file:
        sample = file.read(_QUOTED_SAMPLE)
        more = bool(file.read(1))
    if b'"' not in sample:
        return frozenset()
    rows = list(quotes.records(sample.decode("utf-8-sig", "replace"), dialect.delimiter))
    rows = rows[_before_data(dialect) : -1 if more else None]
    if any(len(row) != len(dialect.header) for row in rows):
        return frozenset()
    return frozenset(dialect.header[number] for number in quotes.quoted_columns(rows, dialect.delimiter))


def _before_data(dialect: Dialect) -> int:
    """Records before the first row."""
    return dialect.told + (dialect.header_lines > dialect.told)


def malformed(path: Path, dialect: Dialect) -> BadData | None:
    """The first row with another number of cells than the header, or an unclosed quote; None if there is none."""
    if error := encoding_error(path):
        return error
    width = len(dialect.header)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_bounded(file), delimiter=dialect.delimiter, strict=True)
        start = 1
        try:
            for number, record in enumerate(reader):
                if record and number >= dialect.told and len(record) != width:
                    return BadData(
                        "ragged_row",
                        f"line {start} has {len(record)} cells where the header has {width}",
                        {"row": start, "cells": len(record), "expected": width},
                    )
                start = reader.line_num + 1
        except csv.Error as error:
            return BadData("not_a_table", f"line {start}: {error}", {"row": start})
    return None


def line_of(path: Path, dialect: Dialect, row: int) -> int:
    """The line on which data row `row` (counted from 0) starts."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_bounded(file), delimiter=dialect.delimiter)
        start, index = 1, -_before_data(dialect)
        for record in reader:
            if record:
                if index == row:
                    return start
                index += 1
            start = reader.line_num + 1
    return start
