"""A log of three voters becomes that of one: nothing in it is lost, and the others are out for good."""

import random
from pathlib import Path

import pytest

from consensus.codec import encode_entry
from consensus.core.base import REGULAR, Timers
from consensus.core.compaction import CompactionRule
from consensus.core.configuration import VoterChange, encode_change
from consensus.core.disk import Corrupt, LocalDisk
from consensus.core.hardened import HardenedRaft
from consensus.core.journal import Journal
from consensus.core.snapshot import SnapshotStore
from consensus.log.recovery import CannotRecover, plan, put_in_place
from consensus.log.replica import Replica
from consensus.messages import Command, Entry, JoinMember, NameCluster
from consensus.state import ClusterState, CommandId, Member, NodeId
from consensus.wire.frames import Message
from tests.unit.consensus.registry import Finished

A, B, C = (NodeId(letter * 32) for letter in "abc")
NEW = "00000000-0000-4000-8000-000000000001"


def command(number: int, what: Command) -> bytes:
    return REGULAR + encode_entry(Entry(CommandId(f"{number:032x}"), 1.0, "test", what))


def member(node: NodeId) -> Member:
    return Member(
        id=node,
        name=f"node-{node[0]}",
        addresses=("10.0.0.1",),
        peer_port=1,
        raft_port=2,
        api_port=3,
        cpus=1,
        version="1",
        joined_at=1.0,
    )


def write_log(folder: Path, members: tuple[NodeId, ...] = (A, B, C)) -> int:
    """What node C has of a cluster that A formed; returns the index of its last entry."""
    journal = Journal(LocalDisk(folder))
    if not len(journal):
        journal.add(b"\x01", 1, 0)
    journal.setCurrentTerm(4, A)
    commands = [command(1, NameCluster("old", "parvada"))]
    commands += [command(2 + number, JoinMember(member(node))) for number, node in enumerate(members)]
    commands += [encode_change(VoterChange(add=True, node=node)) for node in (B, C)]
    for text in commands:
        journal.add(text, journal[-1][1] + 1, 4)
    journal.sync()
    last = journal[-1][1]
    journal.close()
    return last


class Silence:
    """Nobody is there."""

    def send(self, peer: str, message: Message) -> bool:
        return False

    def backlog(self, peer: str) -> int:
        return 0


def start(folder: Path, me: NodeId) -> tuple[HardenedRaft, Replica, Journal]:
    disk = LocalDisk(folder)
    journal, replica = Journal(disk), Replica(ClusterState())
    core = HardenedRaft(
        me,
        A,
        journal=journal,
        store=SnapshotStore(disk),
        machine=replica,
        network=Silence(),
        background=Finished,
        timers=Timers(),
        rule=CompactionRule(),
        rng=random.Random(1),
    )
    return core, replica, journal


def test_the_log_becomes_that_of_one_voter_with_all_that_was_in_it(tmp_path: Path) -> None:
    last = write_log(tmp_path)
    before, _, journal = start(tmp_path, C)
    assert before.electorate.voters == (A, B, C)
    journal.close()
    found = plan(tmp_path, C, NEW, 9.0)
    assert (found.index, found.term, found.lost) == (last, 4, (A, B))
    put_in_place(tmp_path, found)
    core, replica, journal = start(tmp_path, C)
    assert core.electorate.voters == (C,)
    assert core.voter
    state = replica.state
    assert (state.cluster_id, state.name, set(state.members), set(state.revoked)) == (NEW, "parvada", {C}, {A, B})
    core.tick()
    journal.sync()
    core.tick()
    assert core.is_leader
    journal.close()


def test_a_plan_alone_changes_nothing(tmp_path: Path) -> None:
    write_log(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    plan(tmp_path, C, NEW, 9.0)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_recovered_node_that_grew_and_lost_again_is_recovered_from_its_snapshot(tmp_path: Path) -> None:
    write_log(tmp_path)
    put_in_place(tmp_path, plan(tmp_path, C, NEW, 9.0))
    with pytest.raises(CannotRecover, match="only member"):
        plan(tmp_path, C, NEW, 9.0)
    core, _, journal = start(tmp_path, C)
    newcomer = NodeId("d" * 32)
    journal.add(command(77, JoinMember(member(newcomer))), journal[-1][1] + 1, core.term)
    journal.sync()
    journal.close()
    put_in_place(tmp_path, plan(tmp_path, C, NEW, 10.0))
    core, replica, journal = start(tmp_path, C)
    assert (core.electorate.voters, set(replica.state.members)) == ((C,), {C})
    assert set(replica.state.revoked) == {A, B, newcomer}
    journal.close()


def test_refuses_where_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(CannotRecover, match="no Raft journal"):
        plan(tmp_path / "none", C, NEW, 9.0)
    write_log(tmp_path / "outsider", members=(A, B))
    with pytest.raises(CannotRecover, match="not a member"):
        plan(tmp_path / "outsider", C, NEW, 9.0)


def test_a_damaged_snapshot_is_never_passed_over(tmp_path: Path) -> None:
    write_log(tmp_path)
    put_in_place(tmp_path, plan(tmp_path, C, NEW, 9.0))
    raw = bytearray((tmp_path / "snapshot").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "snapshot").write_bytes(raw)
    with pytest.raises(Corrupt):
        plan(tmp_path, C, NEW, 9.0)
