"""Virtual seconds, and the library's clock and batch sizes replaced for as long as a simulation runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import msgspec
from pysyncobj import syncobj

from consensus import levels
from consensus.core import sending
from consensus.levels import LEVEL
from consensus.messages import RevokeToken
from consensus.rules import members

NEW_LEVEL = LEVEL + 1
"""What a coming release understands: `RevokeToken` stands for the command that it brings."""


class Clock:
    """`now` is the world's time; `offset` is how far the clock of the server that runs just now is from it."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.offset = 0.0

    def __call__(self) -> float:
        return self.now + self.offset


class Sizes(msgspec.Struct, frozen=True):
    """Small ones, so that batches, windows and snapshots come apart."""

    batch_bytes: int = 60
    window_entries: int = 8192
    chunk_bytes: int = 1024 * 1024


@contextmanager
def virtual_time(sizes: Sizes | None = None, new_level: int = NEW_LEVEL) -> Iterator[Clock]:
    """The library's clock stands still unless the test moves it. `new_level`: of the newer of two releases."""
    sizes, clock = sizes or Sizes(), Clock()
    with (
        mock.patch.object(syncobj, "monotonicTime", clock),
        mock.patch.object(sending, "BATCH_BYTES", sizes.batch_bytes),
        mock.patch.object(sending, "WINDOW_ENTRIES", sizes.window_entries),
        mock.patch.object(sending, "CHUNK_BYTES", sizes.chunk_bytes),
        mock.patch.object(levels, "NEEDED", {**levels.NEEDED, RevokeToken: new_level}),
        # Nodes have one letter here, to be readable.
        mock.patch.object(members, "check_node_id", return_value=None),
    ):
        yield clock
