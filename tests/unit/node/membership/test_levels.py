"""The leader raises the level in force once the last member understands a higher one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from consensus.messages import JoinMember, RaiseLevel
from consensus.state import Member, NodeId
from node.membership.manager import Membership
from node.membership.voters import Limits
from tests.support.clock import Clock
from tests.support.memory_log import MemoryNetwork

A, B, C = (NodeId(letter * 32) for letter in "abc")
LIMITS = Limits(max_voters=5, promote_after=0.2, away_after=60.0)


def _joining(node: NodeId, level: int) -> JoinMember:
    return JoinMember(Member(node, f"node-{node[0]}", ("127.0.0.1",), 1, 2, 3, 2, "1", 0.0, level=level))


@contextlib.asynccontextmanager
async def _managed(clock: Clock, *levels: int) -> AsyncIterator[tuple[MemoryNetwork, list[Membership]]]:
    """Two members of these levels; the managers are of level 3 themselves."""
    network = MemoryNetwork([A, B])
    for node, level in zip((A, B), levels, strict=True):
        await network.logs[A].propose(_joining(node, level), actor="")
    managers = [Membership(log, LIMITS, clock, level=3) for log in network.logs.values()]
    running = [asyncio.create_task(manager.run()) for manager in managers]
    try:
        yield network, managers
    finally:
        for task in running:
            task.cancel()
        await asyncio.wait(running)


@pytest.mark.parametrize(("understood", "reached"), [((2, 2), 2), ((3, 2), 2), ((9, 9), 3)])
async def test_the_level_becomes_what_all_understand(clock: Clock, understood: tuple[int, int], reached: int) -> None:
    async with _managed(clock, *understood) as (network, _):
        await clock.until(lambda: network.logs[B].state.level == reached)


async def test_nothing_is_asked_for_before_the_last_member_is_upgraded(clock: Clock) -> None:
    async with _managed(clock, 2, 1) as (network, managers):
        await clock.until(lambda: all(manager.seen_ages() for manager in managers))
        await network.logs[A].propose(_joining(B, 2), actor="")
        await clock.until(lambda: network.logs[A].state.level == 2)
        commands = [entry.command for _, entry in network.committed]
        first = next(place for place, command in enumerate(commands) if isinstance(command, RaiseLevel))
        assert commands.index(_joining(B, 2)) < first


@pytest.mark.parametrize("back", [True, False])
async def test_it_does_not_rise_while_a_member_may_be_going_back(clock: Clock, back: bool) -> None:
    """A node that has just gone may be about to come back with the release before: it would be refused from then on."""
    network = MemoryNetwork([A, B, C])
    for node in (A, B, C):
        await network.logs[A].propose(_joining(node, 1 if node == B else 2), actor="")
    running = asyncio.create_task(Membership(network.logs[A], LIMITS, clock=clock, level=3).run())
    try:
        await clock.advance(1.0)
        network.kill(C)
        await network.logs[A].propose(_joining(B, 2), actor="")
        await clock.advance(LIMITS.away_after - 2.0)
        assert network.logs[A].state.level == 1
        if back:
            network.revive(C)
        await clock.advance(1.0 if back else 3.0)
        assert network.logs[A].state.level == 2
    finally:
        running.cancel()
        await asyncio.wait([running])
