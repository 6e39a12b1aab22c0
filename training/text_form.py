"""How a text file is written, as far as its uploader says so: encoding, separator, header."""

import codecs
from pathlib import Path

import msgspec

from training.batches import first_line
from training.errors import BadData, BadRequest
from training.parts import check_room

_COPY_BYTES = 1 << 20


class TextForm(msgspec.Struct, frozen=True):
    """What the uploader says of a text file; empty means "find out"."""

    separator: str = ""
    encoding: str = ""
    header: str = ""
    missing: tuple[str, ...] | None = None

    def check(self) -> None:
        """Raises BadRequest: a value that cannot be."""
        if self.separator and not (
            len(self.separator) == 1 and self.separator.isascii() and self.separator not in '"\r\n'
        ):
            raise _invalid(
                "separator", self.separator, "one ASCII character, and neither a quote nor the end of a line"
            )
        if self.header not in ("", "first", "none"):
            raise _invalid("header", self.header, "first or none")
        if self.encoding and not _is_text_encoding(self.encoding):
            raise _invalid("encoding", self.encoding, "the name of an encoding, as latin-1, windows-1252 or utf-16")

    def of_no_use(self, found: str) -> None:
        """Raises BadRequest: it is said of a file that is no text."""
        for field in ("separator", "encoding", "header"):
            if value := getattr(self, field):
                raise _invalid(field, value, f"left out: it is said of text files, and this one is {found}")


AS_IT_LOOKS = TextForm()


def _invalid(field: str, value: str, allowed: str) -> BadRequest:
    message = f"{field} is {value!r}; it must be {allowed}"
    return BadRequest(f"invalid_{field}", message, {"field": field, "value": value, "allowed": allowed})


def _is_text_encoding(name: str) -> bool:
    try:
        return bool(codecs.lookup(name)._is_text_encoding)  # as open() asks, which has no other way
    except (LookupError, ValueError):
        return False


def in_utf8(path: Path, to: Path, encoding: str, room: int) -> Path:
    """A copy of the text in UTF-8. Raises BadData naming the line that is not in this encoding."""
    written, lines = 0, 1
    decoder = codecs.getincrementaldecoder(encoding)()
    with path.open("rb") as source, to.open("wb") as target:
        try:
            while True:
                chunk = source.read(_COPY_BYTES)
                text = decoder.decode(chunk, final=not chunk)
                lines += text.count("\n")
                written += target.write(text.encode())
                check_room(written, room)
                if not chunk:
                    return to
        except UnicodeError as error:
            message = f"the file is not in {encoding} from about line {lines} on: {first_line(error)}"
            raise BadData("encoding", message, {"row": lines}) from error
