"""The logs of the nodes that a test started, to be shown when it fails: they may be gone before anybody looks."""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

TAIL_LINES = 40
TAIL_BYTES = 16 * 1024

Sections = list[tuple[str, str]]
"""Title and text, as pytest's reports have them."""

_running: dict[str, Callable[[], Sections]] = {}
_ended: dict[str, Sections] = {}


def started(cluster: str, tails: Callable[[], Sections]) -> None:
    """From here on `tails` is asked for the last lines of this cluster when a test fails."""
    _running[cluster] = tails


def ended(cluster: str) -> None:
    """Its last lines are kept until the test that runs now has been judged: it may fail of this very cluster."""
    tails = _running.pop(cluster, None)
    if tails is not None:
        _ended[cluster] = tails()


def drop_ended() -> None:
    _ended.clear()


def sections() -> Sections:
    return [
        section
        for found in (*_ended.values(), *(tails() for tails in _running.values()))
        for section in found
        if section[1].strip()
    ]


@contextlib.contextmanager
def shown(folder: Path) -> Iterator[None]:
    """The logs in this folder are shown when something in the block fails."""
    started(str(folder), partial(of_folder, folder))
    try:
        yield
    finally:
        ended(str(folder))


def of_folder(folder: Path) -> Sections:
    """Of all logs in a folder of nodes that are local processes."""
    return [(f"end of {path}", tail(path)) for path in sorted(set(_logs(folder)))]


def _logs(folder: Path) -> Iterator[Path]:
    """The agents' and their children's; Ray's own are many and long."""
    for pattern in ("log", "*.log", "logs/*.log", "slots/*/logs/*.log", "*/log"):
        yield from folder.glob(pattern)


def tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL_LINES:])
    except OSError as error:
        return f"cannot be read: {error}"
