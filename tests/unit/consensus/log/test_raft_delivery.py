"""The hand-over from the log's thread to the main loop: bounded, in order, and nothing is announced twice."""

import asyncio

import msgspec
import pytest

from consensus.log.delivery import Delivery
from consensus.log.glance import Glance
from consensus.log.proposals import REPEAT_SECONDS, Proposals
from consensus.log.replica import Advance
from consensus.messages import Barrier, Entry
from consensus.ports import Batch, Resync
from consensus.state import ClusterState, CommandId, Json, NodeId, Remembered

A = NodeId("a")
EMPTY = Glance(A, ClusterState(), True, A, 1, 1, 1, 0.0, 0.0, (A,), (A,), (), {}, {}, "")


def applied(index: int, *, restored: bool = False) -> tuple[Glance, Advance]:
    """The turn that applied entry `index`, whose command id is its number."""
    entry = Entry(CommandId(str(index)), 0.0, "", Barrier())
    state = ClusterState(
        index=index, recent=ClusterState().recent.set(entry.id, Remembered(index, False, "", Json(b"")))
    )
    glance = msgspec.structs.replace(EMPTY, state=state, applied_index=index)
    return glance, Advance(state, ((index, entry),), (), restored)


async def test_what_was_applied_before_the_start_is_not_announced_again() -> None:
    delivery = Delivery(ClusterState())
    delivery.turned(*applied(5))
    delivery.begin(asyncio.get_running_loop())
    reader = delivery.feed.subscribe()
    delivery.turned(*applied(6))
    items = [await asyncio.wait_for(anext(reader), 20) for _ in range(2)]
    assert [(type(item), item.state.index) for item in items] == [(Resync, 5), (Batch, 6)]


async def test_a_loop_that_falls_behind_resyncs_and_still_answers_its_waiters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consensus.log.delivery.MAX_UNSEEN", 3)
    delivery = Delivery(ClusterState())
    delivery.turned(EMPTY, None)
    delivery.begin(asyncio.get_running_loop())
    reader = delivery.feed.subscribe()
    await anext(reader)
    waiting = asyncio.create_task(delivery.applied("20", 1))
    await asyncio.sleep(0)
    for index in range(2, 21):
        delivery.turned(*applied(index))
    await waiting
    item = await anext(reader)
    assert (type(item), item.state.index) == (Resync, 20)


async def test_a_snapshot_reaches_readers_as_a_resync() -> None:
    delivery = Delivery(ClusterState())
    delivery.turned(EMPTY, None)
    delivery.begin(asyncio.get_running_loop())
    reader = delivery.feed.subscribe()
    await anext(reader)
    delivery.turned(*applied(90, restored=True))
    item = await asyncio.wait_for(anext(reader), 20)
    assert (type(item), item.state.index) == (Resync, 90)


def test_a_proposal_is_repeated_in_time_and_at_once_to_a_new_leader() -> None:
    proposals = Proposals()
    proposals.add("one", b"1")
    assert proposals.take_due(10.0) == [b"1"]
    assert proposals.take_due(10.1) == []
    assert proposals.next_due == 10.0 + REPEAT_SECONDS
    proposals.see_leader("b", 2)
    assert proposals.take_due(10.2) == [b"1"]
    proposals.see_leader("b", 2)
    proposals.see_leader(None, 3)
    assert proposals.take_due(10.3) == []
    proposals.remove("one")
    assert proposals.next_due == float("inf")


def test_repeats_become_rarer_until_there_is_a_new_leader() -> None:
    """Else a node that is far behind fills the log faster than it catches up."""
    proposals = Proposals()
    proposals.add("one", b"1")
    at = 10.0
    for pause in (0.5, 1.0, 2.0, 4.0, 8.0, 8.0):
        assert proposals.take_due(at) == [b"1"]
        assert proposals.next_due == at + pause
        at = proposals.next_due
    proposals.see_leader("b", 2)
    assert proposals.take_due(at - 5.0) == [b"1"]
    assert proposals.next_due == at - 5.0 + REPEAT_SECONDS
