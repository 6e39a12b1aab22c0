"""Virtual seconds, and the library's clock and batch sizes replaced for as long as a simulation runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import msgspec
from pysyncobj import syncobj

from consensus import levels
from consensus.core import sending
from consensus.messages import RevokeToken
from consensus.rules import members

NEW_LEVEL = 2
"""What the newer of two releases understands; the older one understands level 1."""


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
def virtual_time(sizes: Sizes | None = None) -> Iterator[Clock]:
    """The library's clock stands still unless the test moves it."""
    sizes, clock = sizes or Sizes(), Clock()
    with (
        mock.patch.object(syncobj, "monotonicTime", clock),
        mock.patch.object(sending, "BATCH_BYTES", sizes.batch_bytes),
        mock.patch.object(sending, "WINDOW_ENTRIES", sizes.window_entries),
        mock.patch.object(sending, "CHUNK_BYTES", sizes.chunk_bytes),
        # Stands for the command that a newer release brings.
        mock.patch.object(levels, "NEEDED", {RevokeToken: NEW_LEVEL}),
        # Nodes have one letter here, to be readable.
        mock.patch.object(members, "check_node_id", return_value=None),
    ):
        yield clock
