"""When a new epoch begins, with which head, and that a node follows it: against the log in memory."""

import asyncio
import itertools
from collections.abc import Mapping
from pathlib import Path

import pytest
from immutables import Map
from msgspec.structs import replace

from consensus.messages import AnnounceHead, BeginEpoch, JoinMember, SetMemberStatus
from consensus.ports import LogStatus
from consensus.shares import epoch_shares
from consensus.state import ClusterState, Epoch, Member, MemberStatus, NodeId, Rotation, RotationPhase
from node.epochs.keeper import BACKOFF_FIRST, EpochKeeper, head_to_begin_with
from node.epochs.runtimes import InlineRuntime
from node.processes.children import ChildError, Supervisor
from tests.support.clock import Clock
from tests.support.memory_log import MemoryLog, MemoryNetwork
from training.epoch import RayRole
from training.ray_cluster import RayStartError

A, B, C = (NodeId(letter * 32) for letter in "abc")
PREPARE, PRESENT = RotationPhase.PREPARE, RotationPhase.PRESENT
ACTIVE, AWAY, DRAINING = MemberStatus.ACTIVE, MemberStatus.AWAY, MemberStatus.DRAINING


def member(node: NodeId, status: MemberStatus = ACTIVE) -> Member:
    return Member(node, f"node-{node[0]}", ("127.0.0.1",), 1, 2, 3, 2, "1", 0.0, status)


def state(head: str, **statuses: MemberStatus) -> ClusterState:
    members = {node: member(node, statuses.get(node[0], ACTIVE)) for node in (A, B, C)}
    epoch = Epoch(3, NodeId(head * 32), "x", 0.0) if head else Epoch()
    return _with(epoch, members)


def _with(epoch: Epoch, members: dict[NodeId, Member]) -> ClusterState:
    return ClusterState(epoch=epoch, members=Map(members))


def rotating(head: str, phase: RotationPhase, secret: str = "") -> ClusterState:
    known = state(head)
    return replace(known, rotation=Rotation(phase=phase, coming="d" * 64), epoch=replace(known.epoch, secret=secret))


def status(leader: NodeId | None = A, *, quorum: bool = True, connected: tuple[NodeId, ...] = (B, C)) -> LogStatus:
    return LogStatus(A, leader, 1, 1, 1, quorum, 0.0, (A, B, C), connected, {}, "")


@pytest.mark.parametrize(
    ("case", "known", "seen", "unseen", "expected"),
    [
        ("no epoch yet: the leader is the first head", state(""), status(), {}, A),
        ("the head lives: nothing", state("b"), status(), {B: 0.0}, None),
        ("the leader is the head: nothing", state("a"), status(), {}, None),
        ("the head is lost for a moment: nothing", state("b"), status(connected=(C,)), {B: 0.5}, None),
        ("the head is lost: the leader takes over", state("b"), status(connected=(C,)), {B: 1.5}, A),
        ("the head went away in order", state("b", b=AWAY), status(), {B: 0.0}, A),
        ("the head drains", state("b", b=DRAINING), status(), {B: 0.0}, A),
        ("the head left for good", _with(Epoch(3, B, "x"), {A: member(A)}), status(), {}, A),
        ("a draining leader chooses another", state("a", a=DRAINING), status(), {}, B),
        ("a follower begins nothing", state("b"), status(B, connected=(C,)), {B: 9.0}, None),
        ("without a quorum nothing begins", state(""), status(quorum=False), {}, None),
        ("the secret is about to be replaced: nothing", rotating("b", PREPARE), status(), {}, None),
        ("another secret is presented: the same head, anew", rotating("b", PRESENT), status(), {}, B),
        ("a follower leaves that to the leader", rotating("b", PRESENT), status(B), {}, None),
        ("the epoch began with the new secret: nothing", rotating("b", PRESENT, "d" * 64), status(), {}, None),
    ],
)
def test_head_to_begin_with(
    case: str, known: ClusterState, seen: LogStatus, unseen: Mapping[NodeId, float], expected: NodeId | None
) -> None:
    assert head_to_begin_with(known, seen, unseen) == expected, case


class SlowRuntime(InlineRuntime):
    """A runtime whose joins hang, as Ray's do when the head has died."""

    async def join(self, epoch: int, address: str) -> None:
        await asyncio.Event().wait()


class BrokenRuntime(InlineRuntime):
    def __init__(self, error: Exception, clock: Clock) -> None:
        super().__init__()
        self._error, self._clock = error, clock
        self.starts: list[float] = []

    async def start_head(self, epoch: int) -> None:
        self.starts.append(self._clock())
        raise self._error


async def _network(nodes: tuple[NodeId, ...] = (A, B, C)) -> MemoryNetwork:
    network = MemoryNetwork(nodes)
    network.elect(A)
    for node in nodes:
        await network.logs[node].propose(JoinMember(member(node)), actor="test")
    return network


def _keeper(log: MemoryLog, runtime: InlineRuntime, supervisor: Supervisor, clock: Clock) -> EpochKeeper:
    return EpochKeeper(log, runtime, supervisor, dict, {"PARVADA_LOCAL_SOCKET": "/nowhere"}, clock)


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    return Supervisor(tmp_path, lambda name, error: None)


async def test_the_leader_begins_the_first_epoch_and_announces_itself(supervisor: Supervisor, clock: Clock) -> None:
    network = await _network()
    keeper = _keeper(network.logs[A], InlineRuntime(), supervisor, clock)
    running = asyncio.create_task(keeper.run())
    try:
        await clock.until(lambda: network.logs[A].state.epoch.address == "inline")
        assert network.logs[C].state.epoch == network.logs[A].state.epoch
        assert (network.logs[A].state.epoch.number, network.logs[A].state.epoch.head) == (1, A)
        await clock.until(lambda: keeper.ray_epoch == 1)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await keeper.stop()
        await supervisor.stop()


async def test_a_join_that_hangs_is_given_up_when_its_epoch_is_over(supervisor: Supervisor, clock: Clock) -> None:
    network = await _network()
    runtime = SlowRuntime()
    keeper = _keeper(network.logs[B], runtime, supervisor, clock)
    await network.logs[A].propose(BeginEpoch(1, A), actor="test")
    await network.logs[A].propose(AnnounceHead(1, "10.0.0.1:1"), actor="test")
    running = asyncio.create_task(keeper.run())
    try:
        await asyncio.sleep(0)  # the keeper gets to see the first epoch
        await network.logs[A].propose(BeginEpoch(2, B), actor="test")
        await clock.until(lambda: network.logs[B].state.epoch.address == "inline" and keeper.ray_epoch == 2)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await keeper.stop()
        await supervisor.stop()


@pytest.mark.parametrize("error", [RayStartError("it ended"), ChildError("no process can be started")])
async def test_a_head_that_does_not_start_is_tried_again_later_and_later(
    supervisor: Supervisor, clock: Clock, error: Exception
) -> None:
    network = await _network()
    runtime = BrokenRuntime(error, clock)
    keeper = _keeper(network.logs[A], runtime, supervisor, clock)
    running = asyncio.create_task(keeper.run())
    try:
        await clock.until(lambda: len(runtime.starts) == 4)
        pauses = [after - before for before, after in itertools.pairwise(runtime.starts)]
        assert all(pause >= BACKOFF_FIRST * 2**failures for failures, pause in enumerate(pauses)), pauses
        assert network.logs[A].state.epoch.address == ""
        assert keeper.ray_epoch == 0
    finally:
        running.cancel()
        await asyncio.wait([running])
        await supervisor.stop()


async def test_a_draining_node_ends_its_share(supervisor: Supervisor, clock: Clock) -> None:
    network = await _network()
    runtime = InlineRuntime()
    keeper = _keeper(network.logs[B], runtime, supervisor, clock)
    await network.logs[A].propose(BeginEpoch(1, B), actor="test")
    running = asyncio.create_task(keeper.run())
    try:
        await clock.until(lambda: keeper.ray_epoch == 1)
        await network.logs[A].propose(SetMemberStatus(B, DRAINING), actor="test")
        await clock.until(lambda: keeper.ray_epoch == 0)
    finally:
        running.cancel()
        await asyncio.wait([running])
        await keeper.stop()
        await supervisor.stop()


async def test_a_node_of_another_release_than_the_head_takes_no_part_until_both_are_alike(
    supervisor: Supervisor, clock: Clock
) -> None:
    """What Ray carries between them are structs of one release."""
    network = await _network((A, B))
    log, runtime = network.logs[A], InlineRuntime()
    await log.propose(JoinMember(replace(member(B), level=2)), actor="test")
    await log.propose(BeginEpoch(1, A), actor="test")
    await log.propose(AnnounceHead(1, "inline"), actor="test")
    keeper = _keeper(network.logs[B], runtime, supervisor, clock)
    running = asyncio.create_task(keeper.run())
    try:
        await clock.advance(5.0)
        assert runtime.status.role is RayRole.NONE
        assert epoch_shares(log.state) == {A: 2, B: 0}
        await log.propose(JoinMember(replace(member(A), level=2)), actor="test")
        await clock.until(lambda: runtime.status.role is RayRole.WORKER)
        assert epoch_shares(log.state) == {A: 2, B: 2}
    finally:
        running.cancel()
        await asyncio.wait([running])
        await keeper.stop()
        await supervisor.stop()
