"""The leader's manager against the log in memory: who is promoted, and what notices of stopping do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from consensus.messages import Command, JoinMember, RemoveMember, SetMemberStatus
from consensus.ports import Committed, NoQuorum
from consensus.state import Member, MemberStatus, NodeId
from node.membership.manager import NOTICE_SECONDS, TRANSFER_PAUSE_SECONDS, Membership
from node.membership.voters import Limits
from tests.support.clock import Clock
from tests.support.memory_log import MemoryNetwork

A, B, C = (NodeId(letter * 32) for letter in "abc")
Managed = tuple[MemoryNetwork, dict[NodeId, Membership]]
LIMITS = Limits(max_voters=5, promote_after=2.0, away_after=5.0)


async def founded(*voters: NodeId, learners: tuple[NodeId, ...] = ()) -> MemoryNetwork:
    network = MemoryNetwork(voters, learners)
    network.elect(A)
    for node in (*voters, *learners):
        await registers(network, node)
    return network


async def registers(network: MemoryNetwork, node: NodeId) -> None:
    """As `node.joining.registration` does when the log does not say that it is here."""
    member = Member(node, f"node-{node[0]}", ("127.0.0.1",), 1, 2, 3, 2, "1", 0.0)
    await network.logs[node].propose(JoinMember(member), actor="test")


@contextlib.asynccontextmanager
async def managed(
    clock: Clock, *voters: NodeId, learners: tuple[NodeId, ...] = ()
) -> AsyncIterator[tuple[MemoryNetwork, dict[NodeId, Membership]]]:
    """A network with a manager on every node, A its leader."""
    network = await founded(*voters, learners=learners)
    managers = {node: Membership(network.logs[node], LIMITS, clock) for node in network.logs}
    running = [asyncio.create_task(manager.run()) for manager in managers.values()]
    try:
        yield network, managers
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


async def test_learners_become_voters_one_after_another(clock: Clock) -> None:
    async with managed(clock, A, learners=(B, C)) as (network, _):
        await clock.until(lambda: set(network.voters) == {A, B, C})


async def test_of_stopping_nodes_the_vote_goes_to_those_that_stay(clock: Clock) -> None:
    async with managed(clock, A, B, C) as (network, managers):
        granted = await clock.run(asyncio.gather(managers[A].stopping(B, 10), managers[A].stopping(C, 10)))
        assert all(granted)
        assert network.voters == [A]
        assert {network.logs[A].state.members[node].status for node in (B, C)} == {MemberStatus.AWAY}


async def test_when_all_stop_nothing_changes(clock: Clock) -> None:
    async with managed(clock, A, B, C) as (network, managers):
        granted = await clock.run(asyncio.gather(*(managers[A].stopping(node, 10) for node in (A, B, C))))
        assert all(granted)
        assert set(network.voters) == {A, B, C}
        assert {member.status for member in network.logs[A].state.members.values()} == {MemberStatus.ACTIVE}


async def test_a_node_that_has_been_started_again_stays(clock: Clock) -> None:
    """Nodes restarted one after another: each keeps its vote, and takes its share of work again."""
    async with managed(clock, A, B, C) as (network, managers):
        for node in (B, C, B):
            assert await clock.run(managers[A].stopping(node, 10))
            assert set(network.voters) == {A, B, C}, "the vote of one of three costs nothing while it is away"
            network.kill(node)
            await clock.until(lambda gone=node: gone in managers[A]._stopped)  # type: ignore[misc]
            network.revive(node)
            await registers(network, node)
            await clock.until(lambda: not managers[A]._notices)
            await clock.advance(LIMITS.away_after)
            assert {member.status for member in network.logs[A].state.members.values()} == {MemberStatus.ACTIVE}
            assert set(network.voters) == {A, B, C}


async def test_a_node_that_was_let_go_is_not_taken_for_one_that_came(clock: Clock) -> None:
    """It is still connected while it stops, and a new leader has not heard that it does."""
    async with managed(clock, A, B, C) as (network, managers):
        assert await clock.run(managers[A].stopping(C, 10))
        network.elect(B)
        await clock.advance(NOTICE_SECONDS)
        assert network.logs[B].state.members[C].status is MemberStatus.AWAY
        await registers(network, C)
        assert network.logs[B].state.members[C].status is MemberStatus.ACTIVE


async def test_a_stopping_leader_hands_over_and_is_then_let_go_by_the_next(clock: Clock) -> None:
    async with managed(clock, A, B, C) as (network, managers):
        assert await clock.run(managers[A].stopping(A, 10)) is False, "it is the new leader's to say"
        assert network.leader in (B, C)
        assert network.leader is not None
        assert await clock.run(managers[network.leader].stopping(A, 10)) is True
        assert set(network.voters) == {A, B, C}


async def test_who_stops_later_takes_the_vote_along_that_was_kept(clock: Clock) -> None:
    """Scaled down one by one: of three the first keeps its vote, with the second both go; one is left that works."""
    async with managed(clock, A, B, C) as (network, managers):
        assert await clock.run(managers[A].stopping(C, 10))
        network.kill(C)
        assert set(network.voters) == {A, B, C}
        assert await clock.run(managers[A].stopping(B, 10))
        assert network.voters == [A]


async def test_a_node_is_let_go_only_once_the_log_knows_it_as_away(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else uploads would wait for the copies of a node that has stopped: nobody hears of it again."""
    async with managed(clock, A, B, C) as (network, managers):
        propose = network.logs[A].propose
        held_back: list[Command] = []

        async def handing_over(command: Command, **options: Any) -> Committed:
            if isinstance(command, SetMemberStatus) and not held_back:
                held_back.append(command)
                raise NoQuorum("leadership is being handed over")
            return await propose(command, **options)

        monkeypatch.setattr(network.logs[A], "propose", handing_over)
        assert await clock.run(managers[A].stopping(C, 10)) is False
        assert await clock.run(managers[A].stopping(C, 10)) is True
        assert network.logs[A].state.members[C].status is MemberStatus.AWAY


async def test_a_node_that_vanishes_is_away_and_comes_back(clock: Clock) -> None:
    async with managed(clock, A, B, C) as (network, _):
        network.kill(C)
        await clock.until(lambda: network.logs[A].state.members[C].status is MemberStatus.AWAY)
        assert set(network.voters) == {A, B, C}, "three voters are kept for its return"
        network.revive(C)
        await registers(network, C)
        await clock.until(lambda: network.logs[A].state.members[C].status is MemberStatus.ACTIVE)


async def test_a_node_that_is_to_be_removed_loses_its_vote_and_gets_none_again(clock: Clock) -> None:
    async with managed(clock, A, B, C) as (network, managers):
        network.kill(C)
        assert await clock.run(managers[A].retire(C, 10)), "a dead one too"
        network.revive(C)
        await clock.advance(NOTICE_SECONDS / 2)
        assert set(network.voters) == {A, B}
        await clock.until(lambda: set(network.voters) == {A, B, C})  # it was not removed after all


async def test_a_leader_that_is_to_be_removed_hands_over_first(clock: Clock) -> None:
    async with managed(clock, A, B, C) as (network, managers):
        assert await clock.run(managers[A].retire(A, 10)) is False, "it is the new leader's to take"
        assert network.leader in (B, C)
        assert network.leader is not None
        assert await clock.run(managers[network.leader].retire(A, 10))
        assert set(network.voters) == {B, C}


async def test_a_vote_that_nobody_can_do_without_stays(clock: Clock) -> None:
    async with managed(clock, A, B) as (network, managers):
        network.kill(B)
        assert await clock.run(managers[A].retire(B, 0.3)) is False
        assert set(network.voters) == {A, B}


async def test_who_drains_stays_so_when_it_stops_and_comes_back(clock: Clock) -> None:
    async with managed(clock, A, B, C) as (network, managers):
        await network.logs[A].propose(SetMemberStatus(C, MemberStatus.DRAINING), actor="test")
        assert await clock.run(managers[A].stopping(C, 10))
        network.kill(C)
        await clock.until(lambda: managers[A].seen_ages()[C] > LIMITS.away_after)
        network.revive(C)
        await clock.until(lambda: managers[A].seen_ages()[C] < LIMITS.away_after)
        assert network.logs[A].state.members[C].status is MemberStatus.DRAINING


async def test_nothing_is_kept_of_a_node_that_was_removed(clock: Clock) -> None:
    async with managed(clock, A, B, C) as (network, managers):
        await clock.until(lambda: C in managers[A].seen_ages())
        assert await clock.run(managers[A].retire(C, 10))
        await network.logs[A].propose(RemoveMember(C), actor="test")
        await clock.until(lambda: C not in managers[A].seen_ages())
        assert not any(C in kept for kept in vars(managers[A]).values() if isinstance(kept, dict))


async def test_a_transfer_that_fails_is_tried_with_another_voter_and_not_at_once(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, asked = await founded(A, B, C), []
    log = network.logs[A]

    async def refuse(to: NodeId | None, timeout: float = 5.0) -> None:
        asked.append((to, clock()))
        raise NoQuorum("nobody took over")

    monkeypatch.setattr(log, "transfer_leadership", refuse)
    running = asyncio.create_task(Membership(log, LIMITS, clock).run())
    await clock.advance(2 * LIMITS.promote_after)
    await log.propose(SetMemberStatus(A, MemberStatus.DRAINING), actor="test")
    await clock.until(lambda: len(asked) == 2)
    running.cancel()
    (first, begun), (second, again) = asked
    assert {first, second} == {B, C}
    assert again - begun >= TRANSFER_PAUSE_SECONDS, "writes get through in between"
