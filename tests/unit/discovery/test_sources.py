"""Seeds and the watcher: what is known is reported once, merged, bounded and kept through failures."""

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, strategies as st

from discovery.peer import Hint
from discovery.sources import (
    RESOLVE_SECONDS,
    RESOLVE_TIMEOUT,
    DiscoveryError,
    DuplicateIdentity,
    OnPeers,
    Seed,
    StaticSource,
    parse_seed,
    resolve_ipv4,
)
from discovery.watcher import MAX_HINTS, Watcher
from tests.support.clock import Clock


@pytest.mark.parametrize(
    ("text", "seed"),
    [
        ("10.0.0.1", Seed("10.0.0.1", 7443)),
        ("10.0.0.1:7000", Seed("10.0.0.1", 7000)),
        (" node ", Seed("node", 7443)),
        ("node.example.org:1", Seed("node.example.org", 1)),
    ],
)
def test_seed(text: str, seed: Seed) -> None:
    assert parse_seed(text, 7443) == seed


@pytest.mark.parametrize(
    "text",
    ["", ":7443", "node:", "node:0", "node:65536", "node:x", "http://node", "::1", "[::1]:7443", "10.0.0.300", "a b"],
)
def test_seed_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="seed"):
        parse_seed(text, 7443)


@given(st.text(max_size=300))
def test_no_seed_raises_anything_but_value_error(text: str) -> None:
    try:
        seed = parse_seed(text, 7443)
    except ValueError:
        return
    assert 1 <= seed.port <= 65535


class Inbox:
    """What a source reports, in order."""

    def __init__(self) -> None:
        self.reports: asyncio.Queue[frozenset[Hint]] = asyncio.Queue()

    def __call__(self, source: str, hints: frozenset[Hint]) -> None:
        self.reports.put_nowait(hints)

    async def next(self) -> frozenset[Hint]:
        return await asyncio.wait_for(self.reports.get(), 20)


async def test_addresses_are_hints_at_once_and_names_follow_their_records() -> None:
    answers: asyncio.Queue[Sequence[str] | OSError] = asyncio.Queue()

    async def resolve(host: str) -> Sequence[str]:
        assert host == "node"
        answer = await answers.get()
        if isinstance(answer, OSError):
            raise answer
        return answer

    inbox = Inbox()
    source = StaticSource([Seed("10.0.0.9", 1), Seed("node", 7443)], every=0.001, resolve=resolve)
    await source.start(inbox)
    fixed = Hint("10.0.0.9", 1)
    assert await inbox.next() == {fixed}
    for answer in (["10.0.0.1"], ["10.0.0.1", "10.0.0.2"], OSError("SERVFAIL"), ["not an address"], ["10.0.0.2"]):
        answers.put_nowait(answer)
    assert await inbox.next() == {fixed, Hint("10.0.0.1", 7443)}
    assert await inbox.next() == {fixed, Hint("10.0.0.1", 7443), Hint("10.0.0.2", 7443)}
    # The failure and the nonsense changed nothing.
    assert await inbox.next() == {fixed, Hint("10.0.0.2", 7443)}
    assert inbox.reports.empty()
    await source.stop()


async def test_a_resolver_that_hangs_is_asked_once(clock: Clock) -> None:
    asked: list[str] = []
    others = 0

    async def resolve(host: str) -> Sequence[str]:
        nonlocal others
        if host == "good":
            others += 1
            return [f"10.0.0.{others}"]
        asked.append(host)
        await asyncio.Event().wait()
        return []

    inbox = Inbox()
    clock.hold()
    source = StaticSource([Seed("hangs", 1), Seed("good", 1)], resolve=resolve)
    await source.start(inbox)
    assert await inbox.next() == frozenset()
    for number in range(1, 5):
        await clock.advance(RESOLVE_TIMEOUT)
        assert await inbox.next() == {Hint(f"10.0.0.{number}", 1)}
        assert others == number
        await clock.advance(RESOLVE_SECONDS)
    assert asked == ["hangs"]
    await source.stop()


async def test_the_system_resolver() -> None:
    assert "127.0.0.1" in await asyncio.wait_for(resolve_ipv4("localhost"), 30)
    with pytest.raises(OSError, match=r"."):
        await asyncio.wait_for(resolve_ipv4("no-such-host.invalid"), 30)


class Given:
    """A source that reports what the test says."""

    def __init__(self, name: str, error: DiscoveryError | None = None) -> None:
        self.name = name
        self.error = error
        self.running = False
        self.report: OnPeers | None = None

    async def start(self, on_peers: OnPeers) -> None:
        self.running = True
        self.report = on_peers
        if self.error is not None:
            raise self.error

    async def stop(self) -> None:
        self.running = False

    def say(self, *hints: Hint) -> None:
        assert self.report is not None, "not started yet"
        self.report(self.name, frozenset(hints))


async def until(condition: Callable[[], bool]) -> None:
    """At each turn of the loop, so that nothing is missed."""
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        await asyncio.sleep(0)


async def changed(watcher: Watcher, seen: frozenset[Hint] = frozenset()) -> frozenset[Hint]:
    """The first hints that are others than these."""
    await until(lambda: watcher.hints != seen)
    return watcher.hints


async def running(*sources: Given) -> None:
    await until(lambda: all(source.running for source in sources))


async def test_sources_are_merged_and_changes_seen() -> None:
    seeds, mdns = Given("seeds"), Given("mdns")
    watcher = Watcher([seeds, mdns], debounce=0.02)
    await watcher.start()
    await running(seeds, mdns)
    assert watcher.hints == frozenset()
    one, two, three = (Hint(f"10.0.0.{n}", 7443) for n in (1, 2, 3))
    seeds.say(one)
    mdns.say(two)
    watcher.offer("peers", frozenset([three]))
    all_three = await changed(watcher)
    assert all_three == {one, two, three}, "what came together is reported together"
    mdns.say()
    assert await changed(watcher, all_three) == {one, three}
    await watcher.stop()
    assert not seeds.running
    assert not mdns.running


async def test_the_earlier_source_counts_and_a_flood_leaves_its_hints() -> None:
    seeds, mdns = Given("seeds"), Given("mdns")
    watcher = Watcher([seeds, mdns], debounce=0.01)
    await watcher.start()
    await running(seeds, mdns)
    seed = Hint("10.9.9.9", 7443)
    known = [Hint(f"10.1.0.{n}", 7443) for n in range(10)]
    mdns.say(Hint("10.9.9.9", 7443, "e" * 32), *(Hint(f"10.0.{n // 256}.{n % 256}", 7443) for n in range(1000)))
    seeds.say(seed)
    watcher.offer("peers", frozenset(known))
    hints = await changed(watcher)
    assert len(hints) == MAX_HINTS
    assert hints >= {seed, *known}
    assert [hint for hint in hints if hint.address == seed.address] == [seed], "a stranger put an id on our seed"
    await watcher.stop()


async def test_a_restless_source_does_not_hold_back_the_report() -> None:
    restless = Given("mdns")
    watcher = Watcher([restless], debounce=0.02)
    await watcher.start()
    await running(restless)

    async def shout() -> None:
        number = 0
        while True:
            number += 1
            restless.say(Hint("10.0.0.1", 1 + number % 60000))
            await asyncio.sleep(0)

    shouting = asyncio.create_task(shout())
    assert await changed(watcher) != frozenset()
    shouting.cancel()
    await watcher.stop()


async def test_a_duplicate_identity_reaches_whoever_looks_at_the_hints() -> None:
    fine, duplicate = Given("seeds"), Given("mdns", DuplicateIdentity("twice"))
    watcher = Watcher([fine, duplicate])
    await watcher.start()
    with pytest.raises(DuplicateIdentity, match="twice"):
        await changed(watcher)
    with pytest.raises(DuplicateIdentity, match="twice"):
        assert watcher.hints
    await watcher.stop()
    assert not fine.running
    assert not duplicate.running


async def test_a_slow_source_holds_back_neither_the_start_nor_the_stop() -> None:
    class Slow(Given):
        async def start(self, on_peers: OnPeers) -> None:
            await super().start(on_peers)
            await asyncio.Event().wait()

    seeds, slow = Given("seeds"), Slow("mdns")
    watcher = Watcher([seeds, slow], debounce=0.01)
    await watcher.start()
    await running(slow)
    assert watcher.hints == frozenset()
    slow.say(Hint("10.0.0.1", 1))
    assert await changed(watcher) == {Hint("10.0.0.1", 1)}
    await asyncio.wait_for(watcher.stop(), 20)
    assert not slow.running
