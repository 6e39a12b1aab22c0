"""A node whose cluster has ended: blank at the next start whenever it died on the way, and bound for the other one."""

from pathlib import Path

import msgspec
import pytest

from consensus.state import NodeId
from discovery.peer import Hint
from node.joining.dissolution import DEPARTURE, Departure, carry_out
from node.joining.joining import LOG_BEGUN, RECORD, ClusterRecord, read_record, require_log

DEPARTING = Departure("c-1", "c-2", (Hint("10.0.0.2", 7443, "b" * 32),))


@pytest.fixture
def slot(tmp_path: Path) -> Path:
    """Of a member of c-1 that has noted that it is over."""
    (tmp_path / "raft").mkdir()
    (tmp_path / "raft" / "journal").write_bytes(b"promises")
    (tmp_path / LOG_BEGUN).write_bytes(b"")
    record(tmp_path, "c-1")
    (tmp_path / DEPARTURE).write_bytes(msgspec.json.encode(DEPARTING))
    return tmp_path


def record(slot: Path, cluster: str) -> None:
    made = ClusterRecord(cluster, NodeId("a" * 32), "parvada", "development")
    (slot / RECORD).write_bytes(msgspec.json.encode(made))


def put_aside(slot: Path) -> list[bytes]:
    return [(folder / "journal").read_bytes() for folder in slot.glob("raft.dissolved-*")]


def test_a_node_that_goes_nowhere_is_left_alone(slot: Path) -> None:
    (slot / DEPARTURE).unlink()
    assert carry_out(slot) is None
    assert read_record(slot) is not None
    assert put_aside(slot) == []


def test_the_log_is_put_aside_and_the_node_is_blank(slot: Path) -> None:
    assert carry_out(slot) == DEPARTING
    assert read_record(slot) is None
    require_log(slot)
    assert put_aside(slot) == [b"promises"]


@pytest.mark.parametrize("gone", [["raft"], ["raft", LOG_BEGUN], ["raft", LOG_BEGUN, RECORD]])
def test_a_death_on_the_way_changes_nothing(slot: Path, gone: list[str]) -> None:
    """Whatever step was the last one."""
    (slot / "raft").rename(slot / "raft.dissolved-before")
    for name in gone[1:]:
        (slot / name).unlink()
    for _ in range(2):
        assert carry_out(slot) == DEPARTING
    assert read_record(slot) is None
    require_log(slot)
    assert put_aside(slot) == [b"promises"]


def test_once_it_has_arrived_it_is_on_its_way_no_more(slot: Path) -> None:
    carry_out(slot)
    record(slot, "c-2")
    (slot / "raft").mkdir()
    (slot / "raft" / "journal").write_bytes(b"new promises")
    for _ in range(2):
        assert carry_out(slot) is None
    assert (slot / "raft" / "journal").read_bytes() == b"new promises"
    assert read_record(slot) is not None
