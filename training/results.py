"""What folds bring beyond their tally (all metrics, curves, warnings), and the segments in which it is kept.

A worker encodes the detail of a fold once; nobody on the way to its reader decodes it. A segment is a blob: rows of one
job, compressed. When the job has ended its segments become one results file (`training.archive`).
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

from consensus.state import CandidateId, JobId

MAGIC: Final = b"PVSEG\x01"
MAX_UNPACKED: Final = 256 * 1024 * 1024
"""Bytes of one segment's rows; more than any recorder writes."""
_LEVEL = 1


class Curve(msgspec.Struct, frozen=True):
    """How a figure went during a fit, or over its size: `y[i]` at `x[i]`."""

    over: Literal["iterations", "rows"]
    """What `x` counts."""
    split: Literal["train", "validation"]
    figure: str
    """A metric's name, or `loss`."""
    x: tuple[float, ...]
    y: tuple[float, ...]


class FoldDetail(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a finished fold brought."""

    scores: dict[str, float] = {}
    curves: tuple[Curve, ...] = ()
    warnings: tuple[str, ...] = ()


class Row(msgspec.Struct, frozen=True):
    """One finished fold in a segment."""

    candidate: CandidateId
    fold: int
    epoch: int
    score: float | None
    """Of the unit's metric."""
    fit_seconds: float
    predict_us_per_row: float
    detail: msgspec.Raw
    """An encoded `FoldDetail`."""


class BadSegment(ValueError):
    """The bytes are no segment, or one of another job."""


class BadResults(ValueError):
    """The file is no results file (`training.archive`)."""


class Sealed(msgspec.Struct, frozen=True):
    """What `training.archive.seal` made. `lost`: finished folds of which nothing but the tally was to be had;
    `unreadable`: what is wrong with files of which the bytes are those that were stored. Not there, because the agent
    is told of it and has no Arrow."""

    keep: tuple[CandidateId, ...]
    candidates: int
    folds: int
    lost: int
    unreadable: tuple[str, ...] = ()


def encode_detail(detail: FoldDetail) -> bytes:
    return _ENCODER.encode(detail)


def decode_detail(row: Row) -> FoldDetail:
    """Raises msgspec.MsgspecError."""
    return _DETAIL.decode(row.detail)


def encode_row(row: Row) -> bytes:
    return _ENCODER.encode(row)


def encode_segment(job: JobId, rows: Iterable[bytes]) -> bytes:
    """A segment of rows that `encode_row` made. The job is in it, so that no two jobs have a segment in common."""
    packer = zlib.compressobj(_LEVEL)
    found = [MAGIC, packer.compress(_framed(job.encode()))]
    found += [packer.compress(_framed(row)) for row in rows]
    return b"".join((*found, packer.flush()))


def decode_segment(data: bytes, job: JobId) -> Iterator[Row]:
    """The rows of a segment. Raises BadSegment."""
    if not data.startswith(MAGIC):
        raise BadSegment("these bytes are no segment")
    unpacker = zlib.decompressobj()
    try:
        body = memoryview(unpacker.decompress(data[len(MAGIC) :], MAX_UNPACKED))
    except zlib.error as error:
        raise BadSegment(f"the segment cannot be unpacked: {error}") from error
    if not unpacker.eof:
        raise BadSegment("the segment is cut short, or larger than any segment")
    frames = _frames(body)
    if bytes(next(frames, b"")) != job.encode():
        raise BadSegment(f"the segment is not one of job {job}")
    for frame in frames:
        try:
            yield _ROW.decode(frame)
        except msgspec.MsgspecError as error:
            raise BadSegment(f"a row does not fit: {error}") from error


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(4) + body


def _frames(body: memoryview) -> Iterator[memoryview]:
    at = 0
    while at < len(body):
        size = int.from_bytes(body[at : at + 4])
        at += 4
        if at + size > len(body):
            raise BadSegment("a row is cut short")
        yield body[at : at + size]
        at += size


_ENCODER = msgspec.msgpack.Encoder()
_ROW = msgspec.msgpack.Decoder(Row)
_DETAIL = msgspec.msgpack.Decoder(FoldDetail)
