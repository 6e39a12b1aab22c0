"""Bodies of requests: files, bytes, streams and data frames as replayable chunks, and values as JSON."""

import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import msgspec

from parvada.errors import ParvadaError

if TYPE_CHECKING:
    import pandas as pd

    DataSource = str | Path | bytes | IO[bytes] | pd.DataFrame

CHUNK_BYTES = 256 * 1024
SPOOL_BYTES = 16 * 1024 * 1024
"""A stream that cannot seek is copied first; up to this size in memory."""

Progress = Callable[[int, int], None]
"""Called with (bytes sent, bytes in all) as an upload goes; starts again from 0 if another node takes over."""

CONTENT_TYPES = {
    ".csv": "text/csv",
    ".tsv": "text/tab-separated-values",
    ".parquet": "application/vnd.apache.parquet",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".json": "application/json",
    ".arrow": "application/vnd.apache.arrow.file",
    ".feather": "application/vnd.apache.arrow.file",
    ".gz": "application/gzip",
}
UNKNOWN_TYPE = "application/octet-stream"


class Upload:
    """Bytes that can be sent from their beginning as often as nodes fail. Close it when the call is over."""

    def __init__(self, file: IO[bytes], content_type: str, progress: Progress | None, *, owned: bool) -> None:
        self._file = file
        self._origin = file.tell()
        self.size = file.seek(0, io.SEEK_END) - self._origin
        """In bytes."""
        self.content_type = content_type
        self._progress = progress
        self._owned = owned

    def chunks(self) -> Iterator[bytes]:
        """All bytes from the beginning, reporting each chunk as it is handed over."""
        self._file.seek(self._origin)
        sent = 0
        while chunk := self._file.read(CHUNK_BYTES):
            sent += len(chunk)
            if self._progress is not None:
                self._progress(sent, self.size)
            yield chunk

    def close(self) -> None:
        """Close the file if it was opened here; a caller's own file stays open."""
        if self._owned:
            self._file.close()


def upload_of(source: "DataSource", progress: Progress | None = None) -> Upload:
    """An `Upload` of a path, bytes, an open binary file (from its position) or a DataFrame (as Parquet, no index).

    Raises OSError if the file cannot be opened and TypeError for anything else.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        kind = CONTENT_TYPES.get(path.suffix.lower(), UNKNOWN_TYPE)
        return Upload(path.open("rb"), kind, progress, owned=True)
    if isinstance(source, bytes):
        return Upload(io.BytesIO(source), UNKNOWN_TYPE, progress, owned=True)
    if hasattr(source, "to_parquet"):
        encoded = io.BytesIO()
        source.to_parquet(encoded, index=False)
        encoded.seek(0)
        return Upload(encoded, CONTENT_TYPES[".parquet"], progress, owned=True)
    if hasattr(source, "read"):
        return _upload_of_stream(source, progress)
    raise TypeError(f"cannot upload a {type(source).__name__}; expected a path, bytes, a binary file or a DataFrame")


def _upload_of_stream(stream: IO[bytes], progress: Progress | None) -> Upload:
    if hasattr(stream, "encoding"):
        raise TypeError("cannot upload a text stream; open the file in binary mode")
    kind = CONTENT_TYPES.get(Path(str(getattr(stream, "name", ""))).suffix.lower(), UNKNOWN_TYPE)
    if stream.seekable():
        return Upload(stream, kind, progress, owned=False)
    spool: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115 - closed by Upload.close
    while chunk := stream.read(CHUNK_BYTES):
        spool.write(chunk)
    spool.seek(0)
    return Upload(spool, kind, progress, owned=True)


def predict_body(data: "Sequence[Mapping[str, Any]] | bytes | pd.DataFrame") -> tuple[bytes, str]:
    """(body, content type) of a prediction: rows as mappings, CSV with a header as bytes, or a DataFrame."""
    if isinstance(data, bytes):
        return data, CONTENT_TYPES[".csv"]
    if isinstance(data, Sequence):
        return to_json({"rows": list(data)}), "application/json"
    if hasattr(data, "to_dict"):
        split = data.to_dict("split")
        return to_json({"columns": split["columns"], "data": split["data"]}), "application/json"
    raise TypeError(f"cannot predict from a {type(data).__name__}; expected rows, CSV bytes or a DataFrame")


def to_json(value: Any) -> bytes:
    """JSON of plain values, structs, and what data frames hold: NaN, NaT and NA become null, times ISO 8601."""
    return msgspec.json.encode(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} cannot be sent as JSON: {value!r}")


class Download:
    """A file that is there once all of it has come: written beside its place, and moved when it is whole. Use as a
    context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.part")

    def __enter__(self) -> Self:
        self._file = self._part.open("wb")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)

    def again(self) -> None:
        """From the beginning: another node sends it."""
        self._file.seek(0)
        self._file.truncate()

    def write(self, chunk: bytes) -> None:
        """Raises ParvadaError where the file cannot be written: no other node would help."""
        try:
            self._file.write(chunk)
        except OSError as error:
            raise ParvadaError(f"{self._path} cannot be written: {error.strerror}") from error
