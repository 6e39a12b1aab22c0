"""Structured logging on the standard library: an event name and keys, as text for people or JSON for machines."""

import contextvars
import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import IO, Literal

_context: contextvars.ContextVar[Mapping[str, object] | None] = contextvars.ContextVar("log_context", default=None)
_KEYS = "parvada_keys"

Format = Literal["text", "json"]


class EventLogger:
    """`log.info("epoch.began", epoch=4)`: the event is a dotted past-tense name, the keys are its facts."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **keys: object) -> None:
        self._emit(logging.DEBUG, event, keys)

    def info(self, event: str, **keys: object) -> None:
        self._emit(logging.INFO, event, keys)

    def warning(self, event: str, **keys: object) -> None:
        self._emit(logging.WARNING, event, keys)

    def error(self, event: str, **keys: object) -> None:
        self._emit(logging.ERROR, event, keys)

    def exception(self, event: str, **keys: object) -> None:
        """An error with the traceback of the exception being handled."""
        self._emit(logging.ERROR, event, keys, with_traceback=True)

    def _emit(self, level: int, event: str, keys: Mapping[str, object], *, with_traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            merged = {**(_context.get() or {}), **keys}
            self._logger.log(level, "%s", event, extra={_KEYS: merged}, exc_info=with_traceback, stacklevel=3)


def get(name: str) -> EventLogger:
    return EventLogger(name)


def bind(**keys: object) -> None:
    """Add keys (node, epoch) to every event logged from here on in this context and the tasks made in it."""
    _context.set({**(_context.get() or {}), **keys})


class TextFormatter(logging.Formatter):
    """`12:30:01.250 info    epoch.began  epoch=4 head=n3`."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).strftime("%H:%M:%S.%f")[:-3]
        keys = " ".join(f"{name}={_plain(value)}" for name, value in _keys(record).items())
        line = f"{at} {record.levelname.lower():7} {record.getMessage()}  {keys}".rstrip()
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `at`, `level`, `event`, `logger`, then the keys."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name,
            **_keys(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, ensure_ascii=False)


def configure(form: Format = "text", level: str = "info", stream: IO[str] | None = None) -> None:
    """Send every logger of the process, ours and libraries', to `stream` (standard error) in one form."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for chatty in ("asyncio", "aiohttp.access", "zeroconf"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _keys(record: logging.LogRecord) -> Mapping[str, object]:
    keys: Mapping[str, object] = getattr(record, _KEYS, {})
    return keys


def _plain(value: object) -> str:
    text = f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return json.dumps(text, ensure_ascii=False) if not text or any(c in text for c in ' "=\n') else text
