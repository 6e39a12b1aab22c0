"""The feed: in order, bounded, and honest about what a slow reader has missed."""

import asyncio
import gc

import pytest

from consensus.log.feed import Feed
from consensus.messages import Event
from consensus.ports import Batch, Resync
from consensus.state import ClusterState


def batch(index: int, events: int = 1) -> Batch:
    made = tuple(Event(index, 0.0, "token.created", f"{index}.{n}") for n in range(events))
    return Batch((), made, ClusterState(index=index))


async def test_a_reader_starts_with_the_state_and_gets_every_batch_in_order() -> None:
    feed = Feed(ClusterState(index=3))
    reader = feed.subscribe()
    for index in (4, 5, 6):
        feed.publish(batch(index))
    items = [await anext(reader) for _ in range(4)]
    assert [type(item) for item in items] == [Resync, Batch, Batch, Batch]
    assert [item.state.index for item in items] == [3, 4, 5, 6]


async def test_a_slow_reader_resyncs_to_the_newest_state_and_goes_on() -> None:
    feed = Feed(ClusterState(), queue_batches=3)
    slow, quick = feed.subscribe(), feed.subscribe()
    await anext(quick)
    for index in range(1, 6):
        feed.publish(batch(index))
        assert (await anext(quick)).state.index == index
    seen = [await anext(slow) for _ in range(3)]
    assert isinstance(seen[0], Resync)
    assert [item.state.index for item in seen] == [3, 4, 5], "the queue was cleared when it was full, then filled again"


async def test_a_waiting_reader_is_woken() -> None:
    feed = Feed(ClusterState())
    reader = feed.subscribe()
    await anext(reader)
    waiting = asyncio.create_task(anext(reader))
    await asyncio.sleep(0)
    feed.publish(batch(1))
    assert (await asyncio.wait_for(waiting, 20)).state.index == 1


async def test_closing_ends_the_readers_after_what_is_queued() -> None:
    feed = Feed(ClusterState())
    reader = feed.subscribe()
    feed.publish(batch(1))
    feed.close()
    assert [item.state.index async for item in reader] == [0, 1]
    assert [item.state.index async for item in feed.subscribe()] == [1]


async def test_a_reader_that_is_dropped_costs_nothing() -> None:
    feed = Feed(ClusterState())
    reader = feed.subscribe()
    assert len(feed._subscriptions) == 1
    del reader
    gc.collect()
    feed.publish(batch(1))
    assert len(feed._subscriptions) == 0


def test_recent_events_tell_when_they_no_longer_reach_back() -> None:
    feed = Feed(ClusterState(index=10), recent_events=4)
    assert feed.recent_events(10) == ()
    assert feed.recent_events(9) is None, "what came before the start is not known"
    for index in (11, 12, 13):
        feed.publish(batch(index, events=2))
    # The ring holds 12.0, 12.1, 13.0, 13.1: after index 11 nothing is missing, after 10 something is.
    after = feed.recent_events(11)
    assert after is not None
    assert [event.subject for event in after] == ["12.0", "12.1", "13.0", "13.1"]
    assert feed.recent_events(10) is None


@pytest.mark.parametrize("since", [19, 20])
def test_a_resync_empties_the_ring(since: int) -> None:
    feed = Feed(ClusterState(index=10))
    feed.publish(batch(11))
    feed.resync(ClusterState(index=20))
    assert feed.recent_events(since) == (() if since == 20 else None)
