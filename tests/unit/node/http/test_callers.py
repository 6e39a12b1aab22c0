"""A token that this node does not know: is it unknown, or only new?"""

import asyncio
import hashlib

import pytest

from consensus.messages import CreateToken
from consensus.ports import NoQuorum
from consensus.state import NodeId, Role
from node.http.auth import Callers
from parvada.bearer import Unauthenticated
from tests.support.clock import Clock
from tests.support.memory_log import MemoryLog, MemoryNetwork

pytestmark = pytest.mark.asyncio(loop_scope="module")

A, B, C = (NodeId(name) for name in "abc")


class Behind:
    """A log that hears of what was committed only when it is asked to catch up, as after a restart."""

    def __init__(self, log: MemoryLog) -> None:
        self._log = log
        self.state = log.state
        self.barriers = 0

    async def barrier(self, timeout: float = 5.0) -> int:
        self.barriers += 1
        index = await self._log.barrier(timeout)
        self.state = self._log.state
        return index


async def _token(log: MemoryLog, text: str) -> None:
    digest = hashlib.sha256(text.encode()).hexdigest()
    await log.propose(CreateToken(text, text, Role.OPERATOR, digest), actor="test")


async def test_a_token_made_a_moment_ago_elsewhere_is_known(clock: Clock) -> None:
    network = MemoryNetwork([A, B, C])
    behind = Behind(network.logs[B])
    await _token(network.logs[A], "fresh")
    callers = Callers(behind, tuple, clock)  # type: ignore[arg-type]  # of the log it needs the state and the barrier
    assert (await callers.identify("Bearer fresh")).role == "operator"
    assert behind.barriers == 1
    assert (await callers.identify("Bearer fresh")).name == "fresh"
    assert (await callers.identify(None)).role == ""
    assert behind.barriers == 1, "nobody looks for what is known"


async def test_strangers_do_not_keep_the_log_busy(clock: Clock) -> None:
    network = MemoryNetwork([A, B, C])
    behind = Behind(network.logs[A])
    callers = Callers(behind, tuple, clock)  # type: ignore[arg-type]
    guesses = (callers.identify(f"Bearer guess-{number}") for number in range(200))
    refused = await clock.run(asyncio.gather(*guesses, return_exceptions=True))
    assert all(isinstance(error, Unauthenticated) for error in refused)
    assert behind.barriers <= 2
    with pytest.raises(Unauthenticated):
        await callers.identify("Basic abc")
    assert behind.barriers <= 2


async def test_without_a_majority_nobody_can_tell(clock: Clock) -> None:
    network = MemoryNetwork([A, B, C])
    await _token(network.logs[A], "known")
    network.partition({A}, {B, C})
    callers = Callers(network.logs[A], tuple, clock)
    assert (await callers.identify("Bearer known")).role == "operator"
    with pytest.raises(NoQuorum):
        await clock.run(callers.identify("Bearer unknown"))
