"""The event stream: every event once and in order, resumed by log index, filtered, honest about what it lost."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
import pytest

from consensus.log.feed import Feed
from consensus.ports import Resync
from node.http import events
from tests.support.clock import Clock
from tests.unit.node.http.facts import dataset, run, submit
from tests.unit.node.http.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Stream:
    """Reads frames of Server-Sent Events, or lines of JSON."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def line(self) -> str:
        async with asyncio.timeout(60):
            return (await self._response.content.readline()).decode()

    async def frame(self) -> dict[str, str]:
        """The fields of the next event; comments are skipped."""
        found: dict[str, str] = {}
        while (line := await self.line()) != "\n" or not found:
            assert line, "the stream has ended"
            if not line.startswith(":"):
                name, _, value = line.rstrip("\n").partition(": ")
                found[name] = value
            elif await self.line() != "\n":
                raise AssertionError("a comment is a frame of its own")
        return found

    async def kinds(self, count: int) -> list[str]:
        return [(await self.frame())["event"] for _ in range(count)]


@contextlib.asynccontextmanager
async def stream(
    api: World, query: str = "", headers: dict[str, str] | None = None, path: str = "/v1/events"
) -> AsyncIterator[Stream]:
    async with api.session.get(api.url + path + query, headers=headers) as response:
        assert response.status == 200
        wanted = "application/x-ndjson" if "Accept" in (headers or {}) else "text/event-stream"
        assert response.headers["Content-Type"] == wanted
        assert response.headers["x-parvada-node"] == api.flock.first.id
        yield Stream(response)


async def test_events_come_as_they_happen(api: World) -> None:
    async with stream(api) as live:
        await dataset(api, "live")
        frame = await live.frame()
        assert frame["event"] == "dataset.added"
        assert int(frame["id"]) == api.state.index
        record: dict[str, Any] = msgspec.json.decode(frame["data"])
        assert (record["kind"], record["subject"], record["index"]) == ("dataset.added", "live", api.state.index)
        assert record["detail"] == {"version": 1, "rows": 60}
        assert record["at"].endswith("Z")


@pytest.mark.parametrize("how", ["query", "header"])
async def test_a_reader_resumes_where_it_was(api: World, how: str) -> None:
    start = api.state.index
    for number in range(3):
        await dataset(api, f"resumed-{how}-{number}")
    async with stream(api, f"?since={start}") as first:
        seen = await first.frame()
    rest = {"query": {"query": f"?since={seen['id']}"}, "header": {"headers": {"Last-Event-ID": seen["id"]}}}[how]
    async with stream(api, **rest) as second:  # type: ignore[arg-type]
        subjects = [msgspec.json.decode((await second.frame())["data"])["subject"] for _ in range(2)]
        assert subjects == [f"resumed-{how}-1", f"resumed-{how}-2"]
        await dataset(api, f"resumed-{how}-3")
        assert msgspec.json.decode((await second.frame())["data"])["subject"] == f"resumed-{how}-3"


async def test_json_lines(api: World) -> None:
    start = api.state.index
    await dataset(api, "lines")
    async with stream(api, f"?since={start}", {"Accept": "application/x-ndjson"}) as lines:
        record = msgspec.json.decode(await lines.line())
    assert (record["index"], record["kind"], record["subject"]) == (api.state.index, "dataset.added", "lines")


async def test_events_of_one_kind_and_of_one_job(api: World) -> None:
    start = api.state.index
    await dataset(api, "kinds")
    job = await submit(api, "kinds")
    await run(api, job)
    expected = ["job.submitted", "job.started", "job.folds_recorded", "job.unit_finished", "job.ended"]
    async with stream(api, f"?since={start}&kind=job.") as only:
        assert await only.kinds(5) == expected
    async with stream(api, f"?since={start}", path=f"/v1/jobs/{job}/events") as one:
        assert await one.kinds(5) == expected
    async with stream(api, f"?since={start}&kind=job.ended", path=f"/v1/jobs/{job}/events") as one:
        assert await one.kinds(1) == ["job.ended"]


async def test_events_of_one_index_arrive_together(api: World) -> None:
    """The last unit's end is the job's end: a reader that had only the first would resume after both."""
    start = api.state.index
    await dataset(api, "together")
    job = await submit(api, "together")
    await run(api, job)
    async with api.session.get(f"{api.url}/v1/events?since={start}") as response:
        async with asyncio.timeout(60):
            async for chunk, _ in response.content.iter_chunks():
                if b"job.unit_finished" in chunk:
                    assert b"event: job.ended" in chunk
                    break


async def test_a_reader_that_was_away_too_long_is_told(api: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await dataset(api, "before")
    forgetful = Feed(api.state, recent_events=1)
    monkeypatch.setattr(api.log, "_feed", forgetful)
    index = api.state.index
    await dataset(api, "forgotten")
    await dataset(api, "remembered")
    async with stream(api, f"?since={index - 1}") as late:
        frame = await late.frame()
        assert (frame["event"], int(frame["id"])) == ("resync", api.state.index)
        told = msgspec.json.decode(frame["data"])
        assert told["at"][:4] == str(time.gmtime().tm_year)
        await dataset(api, "after")
        assert (await late.frame())["event"] == "dataset.added"
    async with stream(api, f"?since={index - 1}&kind=job.") as filtered:
        assert (await filtered.frame())["event"] == "resync"


async def test_a_reader_that_was_too_slow_gets_what_the_ring_remembers_once(api: World) -> None:
    start = api.state.index
    await dataset(api, "slow-1")
    async with stream(api, f"?since={start}") as slow:
        assert msgspec.json.decode((await slow.frame())["data"])["subject"] == "slow-1"
        # Its queue ran over: what was in it is gone, and one `Resync` is there instead.
        feed = api.log._feed
        for subscription in list(feed._subscriptions):
            subscription.offer(Resync(api.state))
        await dataset(api, "slow-2")
        for subscription in list(feed._subscriptions):
            subscription.offer(Resync(api.state))
        await dataset(api, "slow-3")
        subjects = [msgspec.json.decode((await slow.frame())["data"])["subject"] for _ in range(2)]
        assert subjects == ["slow-2", "slow-3"]


async def test_a_reader_that_is_ahead_of_this_node_hears_nothing_twice(api: World) -> None:
    """It comes from a node that had applied more."""
    async with stream(api, f"?since={api.state.index + 1}") as ahead:
        await dataset(api, "seen-elsewhere")
        await dataset(api, "new")
        assert msgspec.json.decode((await ahead.frame())["data"])["subject"] == "new"


async def test_a_quiet_stream_is_kept_alive(api: World, clock: Clock) -> None:
    begun = clock()
    async with stream(api) as quiet:
        assert await clock.run(quiet.line()) == ": alive\n"
        assert clock() - begun >= events.KEEPALIVE_SECONDS
        assert await quiet.line() == "\n"
        await dataset(api, "loud")
        assert (await quiet.frame())["event"] == "dataset.added"


@pytest.mark.parametrize("headers", [{}, {"Accept": "application/x-ndjson"}], ids=["sse", "lines"])
async def test_a_reader_that_went_away_is_forgotten(api: World, clock: Clock, headers: dict[str, str]) -> None:
    before = set(api.log._feed._subscriptions)  # those of earlier tests may still be noticed to have gone
    async with stream(api, headers=headers):
        assert len(set(api.log._feed._subscriptions) - before) == 1
    await clock.until(lambda: set(api.log._feed._subscriptions) <= before)


async def test_streams_have_a_bound_and_leave_the_rest_of_the_api_alone(
    api: World, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_streams", asyncio.Semaphore(2))
    async with stream(api), stream(api):
        async with api.session.get(api.url + "/v1/events") as refused:
            assert (refused.status, (await refused.json())["code"]) == (429, "busy")
            assert refused.headers["Retry-After"]
        async with api.session.get(api.url + "/v1/cluster") as other:
            assert other.status == 200

    await clock.until(lambda: not events._streams.locked())
    async with stream(api):  # those who went away have made room
        pass


@pytest.mark.parametrize("query", ["?since=x", "?since=-1", "?since=" + "9" * 30, "?sinc=1"])
async def test_bad_streams(api: World, query: str) -> None:
    assert (await api.call("GET", f"/v1/events{query}")).problem[0] == 400
