"""The log in memory keeps the promises of `ports.Log`: quorum, exactly once, catching up, leadership."""

import asyncio

import pytest

from consensus.messages import Barrier, JoinMember, NameCluster, RevokeToken
from consensus.ports import (
    Batch,
    CommandRejected,
    CommandTooLarge,
    Log,
    MembershipRefused,
    NoQuorum,
    PeerAddress,
    Resync,
)
from consensus.rules.machine import apply
from consensus.state import ClusterState, CommandId
from tests.support.memory_log import MemoryLog, MemoryNetwork
from tests.unit.consensus.facts import A, B, C, Cluster, member

NAME = NameCluster("c-1", "flock")


@pytest.fixture
def network() -> MemoryNetwork:
    return MemoryNetwork([A, B, C], clock=lambda: 1000.0)


def names(network: MemoryNetwork) -> list[str]:
    return [network.logs[node].state.name for node in (A, B, C)]


async def test_it_is_a_log(network: MemoryNetwork) -> None:
    log: Log = network.logs[A]
    await log.start()
    committed = await log.propose(NAME, actor="ann")
    assert committed.index == log.state.index == 1
    await log.stop()


async def test_any_node_proposes_and_every_node_applies(network: MemoryNetwork) -> None:
    await network.logs[C].propose(NAME, actor="ann")
    assert names(network) == ["flock"] * 3
    assert network.logs[A].state == network.logs[B].state == network.logs[C].state


async def test_a_refusal_is_an_error_with_its_code(network: MemoryNetwork) -> None:
    with pytest.raises(CommandRejected, match="no token") as caught:
        await network.logs[A].propose(RevokeToken("t1"), actor="ann")
    assert caught.value.code == "not_found"


@pytest.mark.parametrize("command", [NameCluster("c", "x" * 2**20)])
async def test_a_command_has_a_limit(network: MemoryNetwork, command: NameCluster) -> None:
    with pytest.raises(CommandTooLarge):
        await network.logs[A].propose(command, actor="ann")
    assert network.committed == []


async def test_what_the_codec_cannot_carry_is_a_refusal(network: MemoryNetwork) -> None:
    with pytest.raises(CommandRejected) as caught:
        await network.logs[A].propose(NameCluster("c", "\ud800"), actor="ann")
    assert caught.value.code == "invalid"


async def test_the_same_command_id_has_one_effect(network: MemoryNetwork) -> None:
    one = await network.logs[A].propose(JoinMember(member(A)), actor="a", command_id=CommandId("join"))
    network.kill(A)
    again = await network.logs[B].propose(JoinMember(member(A, cpus=9)), actor="b", command_id=CommandId("join"))
    assert again == one
    assert network.logs[B].state.members[A].cpus == 2


async def test_a_minority_knows_that_it_is_one(network: MemoryNetwork) -> None:
    network.partition([A], [B, C])
    assert not network.logs[A].status.quorum
    assert network.logs[A].status.leader is None
    assert network.logs[A].status.seconds_without_quorum >= 0
    with pytest.raises(NoQuorum):
        await network.logs[A].propose(NAME, actor="ann", timeout=0.01)
    with pytest.raises(NoQuorum):
        await network.logs[A].barrier(timeout=0.01)
    await network.logs[C].propose(NAME, actor="ann")
    assert names(network) == ["", "flock", "flock"]
    network.heal()
    assert names(network) == ["flock"] * 3
    assert network.logs[A].status.seconds_without_quorum == 0


async def test_a_proposal_waits_for_the_majority(network: MemoryNetwork) -> None:
    network.kill(B)
    network.kill(C)
    waiting = asyncio.create_task(network.logs[A].propose(NAME, actor="ann", timeout=5))
    await asyncio.sleep(0)
    assert not waiting.done()
    network.revive(C)
    assert (await waiting).index == 1
    assert names(network) == ["flock", "", "flock"]


async def test_a_dead_leader_is_replaced_in_a_new_term(network: MemoryNetwork) -> None:
    before = network.logs[A].status
    assert before.leader == A
    network.kill(A)
    after = network.logs[B].status
    assert after.leader in (B, C)
    assert after.term == before.term + 1
    network.revive(A)
    assert network.logs[A].status.leader == after.leader, "who comes back follows"


async def test_leadership_is_handed_over(network: MemoryNetwork) -> None:
    with pytest.raises(MembershipRefused):
        await network.logs[B].transfer_leadership(C)
    await network.logs[A].transfer_leadership(C)
    assert network.leader == C
    await network.logs[C].transfer_leadership(None)
    assert network.leader in (A, B)
    network.elect(B)
    assert {log.status.leader for log in network.logs.values()} == {B}
    network.kill(C)
    with pytest.raises(MembershipRefused):
        network.elect(C)


async def test_learners_get_everything_and_count_for_nothing() -> None:
    network = MemoryNetwork([A], [B])
    await network.logs[B].propose(NAME, actor="ann")
    assert network.logs[B].state.name == "flock"
    network.kill(A)
    assert not network.logs[B].status.quorum
    network.revive(A)
    await network.logs[A].add_voter(B)
    assert network.logs[A].status.voters == (A, B)
    with pytest.raises(MembershipRefused):
        await network.logs[A].add_voter(B)
    await network.logs[A].remove_voter(A)
    assert network.leader == B
    with pytest.raises(MembershipRefused):
        await network.logs[B].remove_voter(B)


async def test_a_subscriber_sees_the_state_and_then_every_batch(network: MemoryNetwork) -> None:
    await network.logs[A].propose(NAME, actor="ann")
    feed = network.logs[B].subscribe()
    first = await anext(feed)
    assert isinstance(first, Resync)
    assert first.state.name == "flock"
    await network.logs[A].propose(JoinMember(member(A)), actor="ann")
    batch = await anext(feed)
    assert isinstance(batch, Batch)
    assert [(index, entry.actor) for index, entry in batch.entries] == [(2, "ann")]
    assert [event.kind for event in batch.events] == ["member.joined"]
    assert batch.state is network.logs[B].state


async def test_a_node_that_was_cut_off_gets_what_it_missed_as_one_batch(network: MemoryNetwork) -> None:
    feed = network.logs[C].subscribe()
    await anext(feed)
    network.partition([C], [A, B])
    for node in (A, B):
        await network.logs[A].propose(JoinMember(member(node)), actor="ann")
    network.heal()
    batch = await anext(feed)
    assert isinstance(batch, Batch)
    assert [index for index, _ in batch.entries] == [1, 2]
    events = network.logs[C].recent_events(1)
    assert events is not None
    assert [event.subject for event in events] == [B]


async def test_waiting_for_an_index(network: MemoryNetwork) -> None:
    log = network.logs[C]
    network.partition([C], [A, B])
    index = await network.logs[A].barrier()
    with pytest.raises(TimeoutError):
        await log.wait_applied(index, 0.01)
    waiting = asyncio.create_task(log.wait_applied(index, 5))
    await asyncio.sleep(0)
    network.heal()
    await waiting


async def test_a_barrier_shows_everything_before_it(network: MemoryNetwork) -> None:
    await network.logs[A].propose(NAME, actor="ann")
    assert await network.logs[B].barrier() == 2
    assert network.logs[B].state.name == "flock"


async def test_a_stopped_log_ends_its_subscriptions_and_starts_again(network: MemoryNetwork) -> None:
    log = network.logs[B]
    feed = log.subscribe()
    await anext(feed)
    await log.stop()
    with pytest.raises(StopAsyncIteration):
        await anext(feed)
    await network.logs[A].propose(NAME, actor="ann")
    await log.start()
    assert log.state.name == "flock"
    assert isinstance(await anext(log.subscribe()), Resync)


async def test_beacons_reach_whom_the_network_reaches(network: MemoryNetwork) -> None:
    network.logs[A].set_beacon(b"cpu 5 %")
    assert network.logs[B].beacons()[A].payload == b"cpu 5 %"
    assert network.logs[A].beacons() == {}
    network.partition([A], [B, C])
    assert network.logs[B].beacons() == {}
    with pytest.raises(ValueError, match="65536"):
        network.logs[A].set_beacon(b"x" * 65537)


async def test_lag_is_seen_by_the_leader(network: MemoryNetwork) -> None:
    network.kill(C)
    await network.logs[A].propose(NAME, actor="ann")
    status = network.logs[A].status
    assert dict(status.lag) == {A: 0, B: 0, C: 1}
    assert status.connected == (B,)
    assert network.logs[B].status.lag == {}


async def test_it_goes_on_from_a_given_state() -> None:
    initial = Cluster(NAME, JoinMember(member(A))).state
    network = MemoryNetwork([A], initial=initial)
    committed = await network.logs[A].propose(Barrier(), actor="ann")
    assert committed.index == initial.index + 1
    assert network.logs[A].state.members == initial.members


async def test_its_entries_replay_to_its_state(network: MemoryNetwork) -> None:
    await network.logs[A].propose(NAME, actor="ann")
    await network.logs[B].propose(JoinMember(member(A)), actor="bob")
    state = ClusterState()
    for index, entry in network.committed:
        state = apply(state, index, entry).state
    assert state == network.logs[C].state


async def test_the_peer_table_is_kept(network: MemoryNetwork) -> None:
    log: MemoryLog = network.logs[A]
    log.set_peers({B: PeerAddress(("10.0.0.2",), 7444)})
    assert log.peers[B].port == 7444


async def test_half_is_no_majority() -> None:
    network = MemoryNetwork([A, B])
    network.kill(B)
    assert not network.logs[A].status.quorum
    assert network.leader is None
