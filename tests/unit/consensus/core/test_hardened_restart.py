"""What a node starts from: snapshots, compaction, the voters and the vote, after crashes at every point."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from consensus.core.base import NO_OP
from consensus.core.compaction import CompactionRule
from consensus.core.configuration import VoterChange
from consensus.core.disk import Corrupt
from consensus.core.journal import FILE as JOURNAL_FILE, Journal
from consensus.core.snapshot import FILE as SNAPSHOT_FILE, Snapshot, encode_snapshot
from consensus.wire.frames import (
    AppendEntries,
    AppendReply,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    VoteGranted,
)
from tests.simulation.clock import Clock, virtual_time
from tests.simulation.disk import Crash, SimDisk
from tests.unit.consensus.core.lone import PUT, Lone, elected, joined


@pytest.fixture
def clock() -> Iterator[Clock]:
    with virtual_time() as clock:
        yield clock


class Late:
    """A background run that ends when the test says so."""

    def __init__(self, run: Callable[[], bytes]) -> None:
        self.run, self.ready = run, False

    def done(self) -> bool:
        return self.ready

    def result(self) -> bytes:
        return self.run()


def _add(node: str) -> VoterChange:
    return VoterChange(add=True, node=node)


def puts(first: int, last: int, term: int = 1) -> tuple[tuple[int, bytes], ...]:
    return tuple((term, PUT + f"k{index}".encode()) for index in range(first, last + 1))


def test_a_crash_between_snapshot_and_compaction_keeps_the_tail(clock: Clock) -> None:
    rule = CompactionRule(entries=10, trailing_entries=0)
    for operations in range(40):
        lone = joined(clock, rule=rule)
        lone.disk.crash_after = operations
        with suppress(Crash):
            lone.hears("B", AppendEntries(1, 12, 4, 1, puts(5, 20)))
            lone.turn()
        lone.disk.crash_after = None
        lone.disk.power_loss()
        again = Lone(clock, disk=lone.disk, rule=rule)
        again.turn()
        assert again.core.electorate.voters == ("A", "B", "C")
        if any(message == AppendReply(1, True, 20) for _, message in lone.sent):
            assert again.core.last_index == 20
        if again.journal[0][1] > 1:
            assert again.core.applied_index >= 11
            return
    pytest.fail("no run got as far as the compaction")


def test_a_part_of_a_snapshot_commits_nothing(clock: Clock) -> None:
    lone = joined(clock)
    lone.hears("B", AppendEntries(1, 4, 4, 1, puts(5, 9)))
    raw = encode_snapshot(Snapshot(50, 1, ("A", "B", "C"), b"\x81\xa1k\x01"))
    half = len(raw) // 2
    assert lone.hears("B", SnapshotChunk(1, 50, 0, len(raw), raw[:half])) == [SnapshotReply(1, 50, half, half)]
    assert lone.core.commit_index == 4
    assert lone.hears("B", SnapshotChunk(1, 50, half, len(raw), raw[half:])) == [AppendReply(1, True, 50)]
    assert (lone.core.commit_index, lone.core.applied_index, lone.machine.keys) == (50, 50, {"k": 1})
    assert Lone(clock, disk=lone.disk).machine.keys == {"k": 1}


def test_a_damaged_snapshot_changes_nothing(clock: Clock) -> None:
    lone = joined(clock)
    raw = bytearray(encode_snapshot(Snapshot(50, 1, ("A", "B", "C"), b"\x80")))
    raw[-1] ^= 1
    assert lone.hears("B", SnapshotChunk(1, 50, 0, len(raw), bytes(raw))) == []
    assert lone.core.applied_index == 4
    assert SNAPSHOT_FILE not in lone.disk.files


def test_a_restart_takes_the_voters_from_its_log_not_from_its_start(clock: Clock) -> None:
    with_genesis = Lone(clock, me="B", genesis="B")
    while not with_genesis.core.is_leader:
        with_genesis.turn(0.1)
    for node in "AC":
        with_genesis.core.connected_to(node)
    with_genesis.core.electorate.propose(_add("A"))
    with_genesis.turn()
    # What the disk knows as committed is older than the change, and the peers do not answer.
    again = Lone(clock, me="B", genesis="B", disk=with_genesis.disk)
    again.core.connected_to("C")
    for _ in range(50):
        again.turn(0.1)
    assert not again.core.is_leader


def test_a_missing_snapshot_refuses_to_start(clock: Clock) -> None:
    lone = joined(clock, rule=CompactionRule(entries=10, trailing_entries=0))
    lone.hears("B", AppendEntries(1, 20, 4, 1, puts(5, 20)))
    lone.turn()
    assert lone.journal[0][1] > 1
    lone.disk.discard(SNAPSHOT_FILE)
    with pytest.raises(Corrupt, match="there is no snapshot"):
        Lone(clock, disk=lone.disk)


def test_a_damaged_snapshot_refuses_to_start(clock: Clock) -> None:
    lone = joined(clock, rule=CompactionRule(entries=10, trailing_entries=0))
    lone.hears("B", AppendEntries(1, 20, 4, 1, puts(5, 20)))
    lone.turn()
    lone.disk.files[SNAPSHOT_FILE][-1] ^= 1
    with pytest.raises(Corrupt, match="damaged"):
        Lone(clock, disk=lone.disk)


def test_a_received_snapshot_is_not_replaced_by_an_older_one_made_here(clock: Clock) -> None:
    """The background run ends after a newer snapshot came from the leader."""
    runs: list[Late] = []

    def later(run: Callable[[], bytes]) -> Late:
        runs.append(Late(run))
        return runs[-1]

    lone = joined(clock, rule=CompactionRule(entries=5, trailing_entries=0), background=later)
    lone.hears("B", AppendEntries(1, 12, 4, 1, puts(5, 12)))
    lone.turn()
    raw = encode_snapshot(Snapshot(50, 1, ("A", "B", "C"), b"\x81\xa1k\x01"))
    lone.hears("B", SnapshotChunk(1, 50, 0, len(raw), raw))
    runs[0].ready = True
    lone.turn()
    assert Lone(clock, disk=lone.disk).core.applied_index == 50


def test_a_restarted_node_never_votes_twice_in_a_term(clock: Clock) -> None:
    lone = joined(clock)
    assert VoteGranted(5) in lone.hears("B", RequestVote(5, 9, 9))
    lone.disk.power_loss()
    again = Lone(clock, disk=lone.disk)
    again.core.connected_to("C")
    assert not any(isinstance(message, VoteGranted) for message in again.hears("C", RequestVote(5, 99, 9)))


def test_a_journal_that_ends_before_the_snapshot_starts_from_the_snapshot(clock: Clock) -> None:
    disk = SimDisk()
    journal = Journal(disk)
    journal.add(NO_OP, 1, 0)
    journal.sync()
    disk.files[SNAPSHOT_FILE] = bytearray(encode_snapshot(Snapshot(30, 4, ("A", "B"), b"\x81\xa1z\x02")))
    lone = Lone(clock, disk=disk)
    assert (lone.core.applied_index, lone.core.last_term, lone.machine.keys) == (30, 4, {"z": 2})
    lone.turn()
    assert JOURNAL_FILE in disk.files
    assert Journal(disk)[0] == (NO_OP, 30, 4)


def test_a_snapshot_that_a_full_disk_did_not_take_is_sent_again(clock: Clock) -> None:
    """It fits one message, so its loss shows in nothing but the answers to heartbeats (found by the simulator)."""
    leader = elected(clock, rule=CompactionRule(entries=5, trailing_entries=1))
    leader.hears("B", AppendReply(2, True, 5))
    for _ in range(10):
        leader.core.submit(b"k")
        leader.turn(0.01)
        leader.hears("B", AppendReply(2, True, leader.core.last_index))
    chunks = [m for to, m in leader.sent if to == "C" and isinstance(m, SnapshotChunk) and m.data]
    assert len(chunks) == 1
    assert leader.hears("C", SnapshotReply(2, chunks[0].index, 0, 0)) == chunks
