"""Writing a small file so that a crash leaves either the old content or the new, never a part."""

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes, mode: int = 0o600, mark: str = "") -> None:
    """Temporary file in the same folder, fsync, rename, fsync of the folder. `mark` tells apart those who may write the
    same file at once; by default the process's number, which in containers may be the same."""
    temporary = path.with_name(f".{path.name}.{mark or os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    fsync_folder(path.parent)


def create_exclusively(path: Path, content: bytes, temporary: Path | None = None) -> None:
    """Create `path` (mode 0600) whole and durable, or raise FileExistsError: of many who try at once one succeeds.

    `open(O_EXCL)` alone would leave half a file after a crash; linking a complete one is as exclusive, and atomic.
    """
    temporary = temporary or path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
        # The loser syncs too: it acts upon the winner's file, which must not vanish with the power.
        fsync_folder(path.parent)


def fsync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
