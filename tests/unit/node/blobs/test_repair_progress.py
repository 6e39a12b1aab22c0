"""A repair tells when it begins, how it goes on, and that it is done."""

import logging

import pytest

from consensus.state import Digest
from node.blobs.repair_progress import SAY_SECONDS, RepairProgress

A, B, C = (Digest(name * 64) for name in "abc")


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """Done, of how many, bytes left: of each line since the last call."""
    assert {record.getMessage() for record in caplog.records} <= {"repair.progress"}
    found = [vars(record)["parvada_keys"] for record in caplog.records]
    caplog.clear()
    return [(keys["done"], keys["of"], keys["bytes_left"]) for keys in found]


def test_a_repair_from_its_begin_to_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 100.0
    progress = RepairProgress(lambda: now)
    progress.note({})
    assert said(caplog) == []
    progress.note({A: 10, B: 20})
    assert said(caplog) == [(0, 2, 30)]
    progress.note({B: 20})
    assert said(caplog) == []  # not at every round
    now += SAY_SECONDS
    progress.note({B: 20, C: 5})  # more has become owed meanwhile
    assert said(caplog) == [(1, 3, 25)]
    progress.note({})
    assert said(caplog) == [(3, 3, 0)]
    progress.note({})
    assert said(caplog) == []
