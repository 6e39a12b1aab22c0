"""What a node remembers of its cluster, and that it does not vote again after it has lost its log."""

from pathlib import Path

import msgspec
import pytest

from consensus.state import NodeId
from node.joining import RECOVERING, CannotStart, ClusterRecord, note_log, read_record, require_log


def test_a_blank_slot_and_one_with_its_journal_may_start(tmp_path: Path) -> None:
    require_log(tmp_path)
    (tmp_path / "raft").mkdir()
    (tmp_path / "raft" / "journal").write_bytes(b"x")
    note_log(tmp_path)
    note_log(tmp_path)
    require_log(tmp_path)


def test_a_lost_journal_is_refused_with_what_to_do(tmp_path: Path) -> None:
    note_log(tmp_path)
    with pytest.raises(CannotStart, match=r"journal of .* is gone: restore it, or move the slot's folder away"):
        require_log(tmp_path)


def test_the_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    record = ClusterRecord("c-1", NodeId("a" * 32), "parvada", "volume")
    (tmp_path / "cluster.json").write_bytes(msgspec.json.encode(record))
    assert read_record(tmp_path) == record


def test_a_half_recovered_slot_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / RECOVERING).write_bytes(b"")
    with pytest.raises(CannotStart, match="run `parvada cluster recover` again"):
        require_log(tmp_path)
