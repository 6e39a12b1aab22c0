"""The few durable file operations that the log is built on: a protocol, so that a simulator can lose power,
and its implementation on one local directory."""

import os
from pathlib import Path
from typing import Protocol

from consensus.ports import LogError


class Corrupt(LogError):
    """What is on disk cannot be what was written: the node must not run with it."""


class Disk(Protocol):
    """Files of one directory. Every method may raise OSError; nothing is durable before the sync named."""

    def read(self, name: str) -> bytes | None:
        """The whole file, None if it does not exist."""
        ...

    def write_at(self, name: str, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`, making the file if need be."""
        ...

    def sync(self, name: str) -> None:
        """Make all that was written to the file durable."""
        ...

    def truncate(self, name: str, size: int) -> None: ...

    def prepare(self, temporary: str, data: bytes) -> None:
        """Write a whole new file and make its content durable. Safe to call from another thread."""
        ...

    def commit(self, temporary: str, name: str) -> None:
        """Rename a prepared file over `name` and make that durable."""
        ...

    def discard(self, name: str) -> None:
        """Remove a file if it is there."""
        ...

    def close(self) -> None: ...


class LocalDisk:
    """`Disk` on a directory of a local filesystem. Open files are kept open."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._open: dict[str, int] = {}

    def read(self, name: str) -> bytes | None:
        try:
            return (self._directory / name).read_bytes()
        except FileNotFoundError:
            return None

    def write_at(self, name: str, offset: int, data: bytes) -> None:
        handle = self._handle(name)
        view = memoryview(data)
        while view:
            written = os.pwrite(handle, view, offset)
            view, offset = view[written:], offset + written

    def sync(self, name: str) -> None:
        os.fdatasync(self._handle(name))

    def truncate(self, name: str, size: int) -> None:
        os.ftruncate(self._handle(name), size)

    def prepare(self, temporary: str, data: bytes) -> None:
        handle = os.open(self._directory / temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]
            os.fsync(handle)
        finally:
            os.close(handle)

    def commit(self, temporary: str, name: str) -> None:
        (self._directory / temporary).replace(self._directory / name)
        self._forget(name)
        self._sync_directory()

    def discard(self, name: str) -> None:
        self._forget(name)
        (self._directory / name).unlink(missing_ok=True)

    def close(self) -> None:
        for name in list(self._open):
            self._forget(name)

    def _handle(self, name: str) -> int:
        if name not in self._open:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            self._open[name] = os.open(self._directory / name, flags, 0o600)
            self._sync_directory()
        return self._open[name]

    def _forget(self, name: str) -> None:
        handle = self._open.pop(name, None)
        if handle is not None:
            os.close(handle)

    def _sync_directory(self) -> None:
        handle = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
