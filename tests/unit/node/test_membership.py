"""The leader's manager against the log in memory: who is promoted, and what notices of stopping do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from consensus.memory import MemoryNetwork
from consensus.messages import JoinMember
from consensus.state import Member, MemberStatus, NodeId
from node.membership import Membership
from node.voters import Limits
from tests.unit.node.wait import eventually

A, B, C = (NodeId(letter * 32) for letter in "abc")
Managed = tuple[MemoryNetwork, dict[NodeId, Membership]]
LIMITS = Limits(max_voters=5, promote_after=0.2, away_after=1.0)


@contextlib.asynccontextmanager
async def managed(
    *voters: NodeId, learners: tuple[NodeId, ...] = ()
) -> AsyncIterator[tuple[MemoryNetwork, dict[NodeId, Membership]]]:
    """A network with a manager on every node, A its leader."""
    network = MemoryNetwork(voters, learners)
    network.elect(A)
    for node in (*voters, *learners):
        member = Member(node, f"node-{node[0]}", ("127.0.0.1",), 1, 2, 3, 2, "1", 0.0)
        await network.logs[A].propose(JoinMember(member), actor="test")
    managers = {node: Membership(network.logs[node], LIMITS) for node in network.logs}
    running = [asyncio.create_task(manager.run()) for manager in managers.values()]
    try:
        yield network, managers
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def test_learners_become_voters_one_after_another() -> None:
    async with managed(A, learners=(B, C)) as (network, _):
        await eventually(lambda: set(network.voters) == {A, B, C})


async def test_of_stopping_nodes_the_vote_goes_to_those_that_stay() -> None:
    async with managed(A, B, C) as (network, managers):
        granted = await asyncio.gather(managers[A].stopping(B, 10), managers[A].stopping(C, 10))
        assert all(granted)
        assert network.voters == [A]
        assert {network.logs[A].state.members[node].status for node in (B, C)} == {MemberStatus.AWAY}


async def test_when_all_stop_nothing_changes() -> None:
    async with managed(A, B, C) as (network, managers):
        granted = await asyncio.gather(*(managers[A].stopping(node, 10) for node in (A, B, C)))
        assert all(granted)
        assert set(network.voters) == {A, B, C}
        assert {member.status for member in network.logs[A].state.members.values()} == {MemberStatus.ACTIVE}


async def test_a_stopping_leader_hands_over_and_is_then_let_go_by_the_next() -> None:
    async with managed(A, B, C) as (network, managers):
        assert await managers[A].stopping(A, 10) is False, "it is the new leader's to say"
        assert network.leader in (B, C)
        assert network.leader is not None
        assert await managers[network.leader].stopping(A, 10) is True
        assert set(network.voters) == {B, C}


async def test_a_node_that_vanishes_is_away_and_comes_back() -> None:
    async with managed(A, B, C) as (network, _):
        network.kill(C)
        await eventually(lambda: network.logs[A].state.members[C].status is MemberStatus.AWAY)
        assert set(network.voters) == {A, B, C}, "three voters are kept for its return"
        network.revive(C)
        await eventually(lambda: network.logs[A].state.members[C].status is MemberStatus.ACTIVE)
