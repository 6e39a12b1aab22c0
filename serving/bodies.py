"""Request bodies: which format they are in, how much memory all of them may take together, and how to undo gzip and
deflate without swelling past the limit."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from serving.errors import BadInput, Overloaded, TooLarge, UnsupportedFormat
from serving.payload import Codec, CsvCodec, JsonCodec

_WINDOW: Final = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}


SMALL_BYTES: Final = 64 * 1024
"""Of each body these are free: a few large bodies that arrive slowly must not keep everybody else out."""


class Held:
    """What one request holds of a `BodyBudget`."""

    def __init__(self, budget: "BodyBudget") -> None:
        self._budget = budget
        self.bytes = 0
        self.counted = 0

    def grow(self, size: int) -> None:
        """So many bytes more have arrived. Raises `Overloaded`."""
        counted = max(0, self.bytes + size - SMALL_BYTES)
        self._budget.take(counted - self.counted)
        self.bytes, self.counted = self.bytes + size, counted


class BodyBudget:
    """Bytes of all bodies that are arriving or being worked on; bodies count as they arrive, not as they promise to."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.used = 0

    def take(self, size: int) -> None:
        if size and self.used + size > self._most:
            raise Overloaded(f"Bodies of {self.used} bytes are being worked on already; try again, or another node")
        self.used += size

    @contextmanager
    def hold(self) -> Iterator[Held]:
        """One request, from its body's first byte to its answer."""
        held = Held(self)
        try:
            yield held
        finally:
            self.used -= held.counted


def codec_for(content_type: str, max_values: int) -> Codec:
    """By content type. What plain HTTP clients send when told nothing is taken for JSON. Raises
    `UnsupportedFormat`."""
    if content_type in ("application/json", "application/octet-stream", "application/x-www-form-urlencoded", ""):
        return JsonCodec(max_values)
    if content_type.endswith("+json"):
        return JsonCodec(max_values)
    if content_type in ("text/csv", "application/csv"):
        return CsvCodec(max_values)
    if content_type == "text/tab-separated-values":
        return CsvCodec(max_values, "\t")
    raise UnsupportedFormat(
        f"Content-Type {content_type!r} cannot be read; send application/json or text/csv", content_type=content_type
    )


def check_encoding(encoding: str) -> str:
    """The name of a `Content-Encoding` in small letters, "" for none. Raises `UnsupportedFormat`."""
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return ""
    if name not in _WINDOW:
        raise UnsupportedFormat(f"Content-Encoding {encoding!r} cannot be undone; use gzip or deflate")
    return name


def inflate(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without its `encoding` (of `check_encoding`). Raises `TooLarge` past `max_bytes`, `BadInput` for
    a broken stream."""
    if not encoding:
        return body
    window = _WINDOW[encoding]
    if encoding == "deflate" and not _has_zlib_header(body):
        window = -zlib.MAX_WBITS
    machine = zlib.decompressobj(window)
    try:
        plain = machine.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise BadInput(f"The body is not {encoding}: {error}") from error
    if len(plain) > max_bytes:
        raise TooLarge(f"The body is more than {max_bytes} bytes when unpacked", max_bytes=max_bytes)
    if not machine.eof:
        raise BadInput(f"The {encoding} body is cut off")
    return plain


def _has_zlib_header(body: bytes) -> bool:
    """Some clients send raw deflate under the name of `deflate`."""
    return len(body) >= 2 and body[0] & 0x0F == 8 and int.from_bytes(body[:2], "big") % 31 == 0
