"""What is this node's own trouble is never put on the caller."""

import errno

import pytest

from consensus.messages import Rejected
from consensus.ports import CommandRejected
from node.blobs.distribute import NotDurable
from node.http.errors import render
from node.peering.words import PeerUnreachable
from training.errors import PoolBusy, PoolClosed, TaskFailed, WorkerLost


@pytest.mark.parametrize(
    ("error", "status", "again"),
    [
        (PoolBusy("64 calls are waiting already"), 429, True),
        (PoolClosed("cannot start workshop: out of processes"), 503, True),
        (WorkerLost("training.ingest:ingest was killed"), 422, False),
        (TaskFailed("training.ingest:ingest took longer than 600 s"), 422, False),
        (NotDurable("on too few nodes"), 503, True),
        (PeerUnreachable("no address answers"), 503, True),
        (OSError(errno.ENOSPC, "No space left on device"), 503, True),
        (CommandRejected(Rejected("dissolved", "this node is about to join cluster c-2")), 503, True),
        (CommandRejected(Rejected("conflict", "the alias names version 2")), 409, False),
        (RuntimeError("a defect"), 500, False),
    ],
)
def test_status_and_when_to_come_back(error: Exception, status: int, again: bool) -> None:
    answer = render(error, "/v1/datasets/x")
    assert answer.status == status
    assert ("Retry-After" in answer.headers) is again
