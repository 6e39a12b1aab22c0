"""A node's own entry in the log: made once, renewed when it has moved, and tried again until it is there."""

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from consensus.memory import MemoryLog, MemoryNetwork
from consensus.messages import Command, SetMemberStatus
from consensus.ports import Committed, NoQuorum
from consensus.state import CommandId, Member, MemberStatus
from node import registration
from node.joining import ClusterRecord
from node.registration import Registration
from tests.unit.consensus.facts import A, B, member
from tests.unit.node.wait import eventually

RECORD = ClusterRecord("c-1", A, "flock", "volume")


@contextlib.asynccontextmanager
async def registering(me: Member, log: MemoryLog) -> AsyncIterator[None]:
    task = asyncio.create_task(Registration(me, RECORD, log).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registration, "CHECK_SECONDS", 0.3)
    monkeypatch.setattr(registration, "RETRY_SECONDS", 0.02)


async def test_the_first_node_names_the_cluster_and_a_moved_one_says_where_it_is() -> None:
    network = MemoryNetwork([A, B])
    log = network.logs[A]
    async with registering(member(A), log):
        await eventually(lambda: A in log.state.members)
    assert (log.state.cluster_id, log.state.name) == ("c-1", "flock")
    await log.propose(SetMemberStatus(A, MemberStatus.DRAINING), actor="ann")
    before = len(network.committed)
    async with registering(member(A), log):
        await asyncio.sleep(0.1)
    assert len(network.committed) == before, "that it drains is no reason"
    async with registering(structs.replace(member(A), addresses=("10.9.9.9",)), log):
        await eventually(lambda: log.state.members[A].addresses == ("10.9.9.9",))
    assert log.state.members[A].status is MemberStatus.DRAINING


class Deaf(MemoryLog):
    """Every proposal times out; when each began and ended."""

    def __init__(self) -> None:
        super().__init__(B, MemoryNetwork([A, B]))
        self.begun: list[float] = []
        self.ended: list[float] = []

    async def propose(
        self, command: Command, *, actor: str, command_id: CommandId | None = None, timeout: float = 10.0
    ) -> Committed:
        self.begun.append(time.monotonic())
        await asyncio.sleep(registration.CHECK_SECONDS)
        self.ended.append(time.monotonic())
        raise NoQuorum("not committed")


async def test_who_has_waited_long_in_vain_tries_again_soon() -> None:
    log = Deaf()
    async with registering(member(B), log):
        await eventually(lambda: len(log.begun) == 4)
    pauses = [again - ended for ended, again in zip(log.ended, log.begun[1:], strict=True)]
    assert statistics.median(pauses) < registration.CHECK_SECONDS / 2
