"""A node's own entry in the log: made once, renewed when it has moved, and tried again until it is there."""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator

from msgspec import structs

from consensus.messages import Command, SetMemberStatus
from consensus.ports import Committed, NoQuorum
from consensus.state import CommandId, Member, MemberStatus
from node.joining.joining import ClusterRecord
from node.joining.registration import CHECK_SECONDS, Registration
from tests.support.clock import Clock
from tests.support.memory_log import MemoryLog, MemoryNetwork
from tests.unit.consensus.facts import A, B, member

RECORD = ClusterRecord("c-1", A, "flock", "volume")


@contextlib.asynccontextmanager
async def registering(me: Member, log: MemoryLog, clock: Clock) -> AsyncIterator[None]:
    task = asyncio.create_task(Registration(me, RECORD, log, clock).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_the_first_node_names_the_cluster_and_a_moved_one_says_where_it_is(clock: Clock) -> None:
    network = MemoryNetwork([A, B])
    log = network.logs[A]
    async with registering(member(A), log, clock):
        await clock.until(lambda: A in log.state.members)
    assert (log.state.cluster_id, log.state.name) == ("c-1", "flock")
    await log.propose(SetMemberStatus(A, MemberStatus.DRAINING), actor="ann")
    before = len(network.committed)
    async with registering(member(A), log, clock):
        await clock.advance(3 * CHECK_SECONDS)
    assert len(network.committed) == before, "that it drains is no reason"
    async with registering(structs.replace(member(A), addresses=("10.9.9.9",)), log, clock):
        await clock.until(lambda: log.state.members[A].addresses == ("10.9.9.9",))
    assert log.state.members[A].status is MemberStatus.DRAINING


async def test_a_node_whose_machine_has_changed_says_so(clock: Clock) -> None:
    """After a start of the machine it has another name, and it may have other cores; its operator may give it some."""
    log = MemoryNetwork([A, B]).logs[A]
    for machine, cpus, given in (("m-1", 2, False), ("m-2", 2, False), ("m-2", 4, False), ("m-2", 4, True)):
        me = structs.replace(member(A), machine=machine, cpus=cpus, cpus_given=given)
        async with registering(me, log, clock):
            await clock.until(lambda: A in log.state.members)
            await clock.until(
                lambda me=me: (
                    (  # type: ignore[misc]  # default argument in a lambda
                        log.state.members[A].machine,
                        log.state.members[A].cpus,
                        log.state.members[A].cpus_given,
                    )
                    == (me.machine, me.cpus, me.cpus_given)
                )
            )


class Deaf(MemoryLog):
    """Every proposal times out; when each began and ended."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(B, MemoryNetwork([A, B]))
        self._clock = clock
        self.begun: list[float] = []
        self.ended: list[float] = []

    async def propose(
        self, command: Command, *, actor: str, command_id: CommandId | None = None, timeout: float = 10.0
    ) -> Committed:
        self.begun.append(self._clock())
        await asyncio.sleep(timeout)
        self.ended.append(self._clock())
        raise NoQuorum("not committed")


async def test_who_has_waited_long_in_vain_tries_again_soon(clock: Clock) -> None:
    log = Deaf(clock)
    async with registering(member(B), log, clock):
        await clock.until(lambda: len(log.begun) == 4)
    pauses = [again - ended for ended, again in zip(log.ended, log.begun[1:], strict=True)]
    assert statistics.median(pauses) < CHECK_SECONDS / 2
