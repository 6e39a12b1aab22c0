"""What a running task may do beside computing its result."""

import msgspec

from training.blob_door import BlobDoor
from training.ports import Emit, to_nobody


class TaskContext(msgspec.Struct, frozen=True):
    """Given to every task's function as its third argument."""

    emit: Emit
    """Tell a `CurvePoint` or a `Checkpoint` to the trainer; never waits, see `training.outbox`."""
    door: BlobDoor | None = None
    """Into the blob store of the worker's node; None where no agent is."""


ALONE = TaskContext(to_nobody)
"""Of a task that nobody listens to."""
