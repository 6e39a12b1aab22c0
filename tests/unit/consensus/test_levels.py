"""Releases side by side: what a command needs, what is in force, and what an older release does about it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import msgspec
import pytest

from consensus import levels
from consensus.codec import CodecError, decode_entry, decode_state, encode_entry, encode_state
from consensus.core.disk import Corrupt
from consensus.levels import LEVEL, TooNew, common_level, stamped
from consensus.log.replica import Replica
from consensus.messages import (
    Barrier,
    Entry,
    FinishUnit,
    FoldDone,
    HeldBlob,
    JoinMember,
    RaiseLevel,
    RecordFolds,
    Rejected,
    RemoveMember,
    RevokeToken,
    SealJob,
    SetMemberStatus,
)
from consensus.ports import CommandRejected, NoQuorum
from consensus.queries import outcome_of
from consensus.rules.machine import apply
from consensus.state import CandidateId, CandidateState, ClusterState, CommandId, JobId, JobState, Json, MemberStatus
from tests.support.clock import Clock
from tests.support.memory_log import MemoryNetwork
from tests.unit.consensus.fabric import cluster, eventually
from tests.unit.consensus.facts import A, B, Cluster, digest, kinds, member
from tests.unit.consensus.rules.invariants import check_invariants

NEXT = LEVEL + 1
NEWER = (JoinMember(member(A, level=2)), JoinMember(member(B, level=2)))


@pytest.fixture
def newer_command() -> Iterator[None]:
    """`RevokeToken` stands for a command that needs level 2."""
    with mock.patch.object(levels, "NEEDED", {RevokeToken: 2}):
        yield


def foreign(level: int, name: str = "FromTheFuture") -> bytes:
    """An entry of a command that this release does not know."""
    command = {"type": name, "what": [1, 2]}
    entry = {"id": "new", "time": 7.0, "actor": "ann", "command": command, "level": level}
    return b"\x01e" + msgspec.msgpack.encode(entry)


# ---------------------------------------------------------------- the level in force
def test_the_level_rises_when_every_member_understands_it() -> None:
    cluster = Cluster(*NEWER)
    assert common_level(cluster.state) == 2
    assert kinds(cluster.accept(RaiseLevel(2))) == ["cluster.level_raised"]
    assert cluster.state.level == 2
    assert cluster.accept(RaiseLevel(1)).events == ()
    assert cluster.state.level == 2, "it never falls"


def test_one_older_member_holds_it_back_also_while_it_is_away() -> None:
    cluster = Cluster(JoinMember(member(A, level=2)), JoinMember(member(B)), SetMemberStatus(B, MemberStatus.AWAY))
    assert common_level(cluster.state) == 1
    assert cluster.reject(RaiseLevel(2)).reason == "node-b understands level 1 only, not 2: upgrade or remove it"
    cluster.accept(RemoveMember(B))
    cluster.accept(RaiseLevel(2))


def test_nobody_raises_the_level_of_no_members() -> None:
    assert Cluster().reject(RaiseLevel(2)).code == "conflict"


def test_a_member_may_go_back_only_before_the_level_is_in_force() -> None:
    cluster = Cluster(*NEWER, JoinMember(member(B, level=1)))
    assert cluster.state.members[B].level == 1
    cluster.accept(JoinMember(member(B, level=2)))
    cluster.accept(RaiseLevel(2))
    refused = cluster.reject(JoinMember(member(B, level=1)))
    assert refused.reason == (
        "node-b understands level 1, the cluster is at level 2: install the release of the other nodes"
    )


# ---------------------------------------------------------------- entries above it
def test_an_entry_above_the_level_in_force_is_refused_alike_by_who_knows_it_and_who_does_not() -> None:
    older, newer = Replica(ClusterState(), level=LEVEL), Replica(ClusterState(), level=NEXT)
    known = encode_entry(Entry(CommandId("new"), 7.0, "ann", RevokeToken("t"), level=NEXT))
    newer.apply(2, known)
    older.apply(2, foreign(NEXT))
    assert encode_state(older.state) == encode_state(newer.state)
    outcome = outcome_of(older.state.recent[CommandId("new")])
    assert isinstance(outcome, Rejected)
    assert outcome.code == "conflict"
    assert not older.state.audit


def test_what_does_not_fit_at_a_level_that_is_understood_changes_nothing() -> None:
    replica = Replica(ClusterState())
    replica.apply(2, foreign(1))
    assert replica.state.index == 2
    assert not replica.state.recent


async def test_a_command_above_the_level_never_gets_into_the_log(newer_command: None) -> None:
    network = MemoryNetwork([A])
    with pytest.raises(CommandRejected, match="the command needs level 2, level 1 is in force"):
        await network.logs[A].propose(RevokeToken("t"), actor="ann")
    assert not network.committed
    for command in (NEWER[0], RaiseLevel(2)):
        await network.logs[A].propose(command, actor="ann")
    with pytest.raises(CommandRejected, match="no token"):
        await network.logs[A].propose(RevokeToken("t"), actor="ann")
    assert [entry.level for _, entry in network.committed] == [1, 1, 2]


# ---------------------------------------------------------------- an older release
def replayed(*commands: object, level: int) -> Replica:
    replica = Replica(ClusterState(), level)
    for index, command in enumerate(commands, 2):
        replica.apply(index, encode_entry(stamped(CommandId(f"c{index}"), 1.0, "ann", command)))  # type: ignore[arg-type]
    return replica


def test_an_older_release_stops_at_the_very_entry_that_raises_the_level() -> None:
    with pytest.raises(TooNew) as stopped:
        replayed(*NEWER, RaiseLevel(2), Barrier(), level=1)
    assert str(stopped.value) == (
        "this release understands level 1, the log needs level 2: upgrade this node to the release of the others"
    )
    assert replayed(*NEWER, RaiseLevel(2), Barrier(), level=2).state.level == 2


def test_an_older_release_does_not_take_a_newer_snapshot() -> None:
    snapshot = replayed(*NEWER, RaiseLevel(2), level=2).freeze()()
    with pytest.raises(TooNew):
        Replica(ClusterState(), level=1).decode(snapshot)
    strange = {"level": 2, "members": "what a later release makes of it"}
    with pytest.raises(TooNew):
        Replica(ClusterState(), level=1).decode(b"\x01s" + msgspec.msgpack.encode(strange))
    with pytest.raises(Corrupt):
        Replica(ClusterState(), level=2).decode(b"\x01s" + msgspec.msgpack.encode(strange))


async def test_a_real_log_stops_there_too_and_does_not_start_again(tmp_path: Path, clock: Clock) -> None:
    async with cluster(tmp_path, "a") as nodes:
        log = nodes.logs["a"]
        await log.propose(JoinMember(member(A, level=NEXT)), actor="")
        raised = asyncio.create_task(log.propose(RaiseLevel(NEXT), actor="", timeout=30))
        await eventually("the log to stop", lambda: nodes.crashes)
        await clock.advance(30)
        with pytest.raises(NoQuorum):
            await raised
        assert isinstance(nodes.crashes.pop(), TooNew)
        await nodes.stop("a")
        with pytest.raises(TooNew, match=f"understands level {LEVEL}, the log needs level {NEXT}: upgrade"):
            await asyncio.wait_for(nodes.make("a").start(), 20.0)


# ---------------------------------------------------------------- what was written before there were levels
def test_entries_members_and_states_of_before_are_of_level_one() -> None:
    entry = Entry(CommandId("c"), 1.0, "ann", JoinMember(member(A)))
    plain = msgspec.msgpack.decode(encode_entry(entry)[2:])
    assert "level" not in plain, "the bytes of level 1 are those of before"
    del plain["command"]["member"]["level"]
    assert decode_entry(b"\x01e" + msgspec.msgpack.encode(plain)) == entry
    state = msgspec.msgpack.decode(encode_state(Cluster(JoinMember(member(A))).state)[2:], strict=False)
    del state["level"]
    assert decode_state(b"\x01s" + msgspec.msgpack.encode(state)).level == 1


@pytest.mark.parametrize("level", [0, 1, LEVEL, -5])
def test_garbage_does_not_pass_for_an_entry_of_a_newer_release(level: int) -> None:
    with pytest.raises(CodecError):
        Replica(ClusterState()).read(foreign(level))


# ---------------------------------------------------------------- what the release before wrote
OLD = Path(__file__).parent / "data"
"""`level1.log`: entries of jobs of every state, encoded by the last release of level 1 (a msgpack array of entries);
`level1.state`: the snapshot that it made of them."""


def test_a_log_of_level_one_makes_the_state_that_its_release_made() -> None:
    state = ClusterState()
    for index, entry in enumerate(msgspec.msgpack.decode((OLD / "level1.log").read_bytes()), 1):
        state = apply(state, index, decode_entry(entry)).state
    assert state == decode_state((OLD / "level1.state").read_bytes())
    assert {job.state for job in state.jobs.values()} > {JobState.RUNNING, JobState.SUCCEEDED, JobState.CANCELLED}
    assert all(unit.tally is None for job in state.jobs.values() for unit in job.units)


def test_a_job_of_level_one_runs_on_at_level_two_and_is_sealed() -> None:
    cluster = Cluster()
    cluster.state = decode_state((OLD / "level1.state").read_bytes())
    for command in (*NEWER, RaiseLevel(2)):
        cluster.accept(command)
    two, first = JobId("job-2"), CandidateId("0.1")
    cluster.accept(RecordFolds(2, two, (FoldDone(first, 1, Json(b'{"roc_auc": 0.5}'), 1.0, 1.0),)))
    assert cluster.state.jobs[two].candidates[first].state is CandidateState.OK
    for number, best in enumerate((first, CandidateId(""))):
        cluster.accept(FinishUnit(2, two, number, best))
    ended = cluster.state.jobs[two]
    cluster.accept(SealJob(two, ended.ended_at, HeldBlob(digest(77), 9, (A,)), ()))
    assert set(cluster.state.jobs[two].candidates) == {first}
    check_invariants(cluster.state)
