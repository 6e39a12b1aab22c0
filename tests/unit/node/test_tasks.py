"""Root tasks: one that ends or fails is reported; cancelling is neither; logs say what happened."""

import asyncio
import contextlib
import contextvars
import io
import json
import logging

import pytest

from node import logs
from node.tasks import AGAIN_SECONDS, STOP_SECONDS, Tasks
from tests.support.clock import Clock


async def _returns() -> None:
    await asyncio.sleep(0)


async def _raises() -> None:
    await asyncio.sleep(0)
    raise RuntimeError("boom")


async def _runs() -> None:
    await asyncio.Event().wait()


class Reports:
    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []
        self.event = asyncio.Event()

    def __call__(self, name: str, error: BaseException | None) -> None:
        self.seen.append((name, None if error is None else str(error)))
        self.event.set()


@pytest.mark.parametrize(("work", "told"), [(_returns, None), (_raises, "boom")])
async def test_a_root_task_that_ends_is_a_failure(work: object, told: str | None) -> None:
    reports = Reports()
    tasks = Tasks(reports)
    tasks.start(_returns() if work is _returns else _raises(), "root")
    await asyncio.wait_for(reports.event.wait(), 30)
    assert reports.seen == [("root", told)]
    await tasks.stop()


async def test_a_brief_task_may_end_but_not_fail() -> None:
    reports = Reports()
    tasks = Tasks(reports)
    await asyncio.wait_for(tasks.run(_returns(), "fine"), 30)
    assert reports.seen == []
    await asyncio.wait_for(tasks.run(_raises(), "brief"), 30)
    assert reports.seen == [("brief", "boom")]


async def test_stopping_cancels_and_reports_nothing() -> None:
    reports = Reports()
    tasks = Tasks(reports)
    root, brief = tasks.start(_runs(), "root"), tasks.run(_runs(), "brief")
    await tasks.stop()
    assert root.cancelled()
    assert brief.cancelled()
    assert reports.seen == []


async def test_a_task_that_ignores_its_cancellation_does_not_hold_the_stop(clock: Clock) -> None:
    tasks = Tasks(Reports())
    release = asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    task = tasks.start(stubborn(), "stubborn")
    await asyncio.sleep(0)
    begun = clock()
    await clock.run(tasks.stop())
    assert clock() - begun >= STOP_SECONDS
    assert not task.done()
    release.set()
    await asyncio.wait([task])


async def test_a_swallowed_cancellation_is_repeated(clock: Clock) -> None:
    tasks = Tasks(Reports())

    async def swallows_one() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    task = tasks.start(swallows_one(), "swallows")
    await asyncio.sleep(0)
    begun = clock()
    await clock.run(tasks.stop())
    assert AGAIN_SECONDS <= clock() - begun < STOP_SECONDS
    assert task.cancelled()


@pytest.fixture
def stream() -> "io.StringIO":
    return io.StringIO()


@pytest.fixture(autouse=True)
def _keep_logging() -> object:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_lines_carry_event_keys_and_context(stream: io.StringIO) -> None:
    logs.configure("json", "info", stream)
    log = logs.get("node.test")

    def within() -> None:
        logs.bind(node="n1")
        log.info("epoch.began", epoch=4, head="n3")
        log.debug("not.shown")

    contextvars.copy_context().run(within)
    log.warning("outside")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["level"], first["epoch"], first["head"], first["node"]) == (
        "epoch.began",
        "info",
        4,
        "n3",
        "n1",
    )
    assert "node" not in second


def test_text_lines_quote_what_would_be_ambiguous(stream: io.StringIO) -> None:
    logs.configure("text", "info", stream)
    logs.get("node.test").info("child.exited", name="front 1", status=3, ran=0.25)
    assert stream.getvalue().endswith('info    child.exited  name="front 1" status=3 ran=0.25\n')


def test_exceptions_bring_their_traceback(stream: io.StringIO) -> None:
    logs.configure("json", "info", stream)
    try:
        int("of no use")
    except ValueError:
        logs.get("node.test").exception("it.failed")
    assert "ValueError: invalid literal" in json.loads(stream.getvalue())["traceback"]
