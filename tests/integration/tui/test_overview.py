"""The first screen against real servers: what it shows, that it moves to a living node, and that it never gives up."""

import asyncio
import statistics
import time
from functools import partial
from typing import Any

import pytest
from textual.widgets import DataTable

from tests.integration.tui.watching import app_for, looks, node, screen_text, shown, table, until
from tests.support.clock import Clock
from tests.unit.parvada import canned
from tests.unit.parvada.scripted import Answer, Seen, event_block, free_port, from_table, problem

pytestmark = pytest.mark.timeout(240)


@pytest.mark.parametrize("size", [(120, 35), (80, 24), (60, 20)])
async def test_shows_the_cluster_at_a_glance_at_every_size(size: tuple[int, int]) -> None:
    with node() as first:
        async with app_for(first.url).run_test(size=size) as pilot:
            await looks(pilot, partial(shows_the_cluster, width=size[0]))


def shows_the_cluster(lines: list[str], width: int) -> None:
    text = "\n".join(lines)
    for word in ("node-1", "node-2", "node-3", "spring", "model published"):
        assert word in text
    assert all(len(line) <= width for line in lines)
    assert "parvada  ● node-1" in lines[0]
    assert "node-1" in lines[1], "the leader"
    assert "3/3" in lines[1], "the quorum"
    assert "60" in lines[1], "requests a second over all nodes"
    assert "● alive" in text
    assert "50%" in text
    assert "0.973 RandomForest" in text
    assert "1m15 left" in text
    assert "q Quit" in lines[-1]
    assert "joined  node-2" in text, "events name nodes, not their ids"
    if width >= 80:
        assert "term 7" in lines[1]
        assert "epoch 2" in lines[1]
        assert "ray head node-2" in lines[1]
        assert "4/6" in text
        assert "iris v3" in text


async def test_a_dead_node_a_lost_quorum_and_alarms_are_loud() -> None:
    cluster = canned.cluster(
        canned.node(1, leader=False),
        canned.node(2, state="dead", last_seen="2026-11-22T11:58:45Z"),
        canned.node(3, state="suspect"),
        quorum=False,
        leader=None,
        alarms=[{"code": "disk", "since": "2026-11-22T12:00:00Z", "message": "the disk of node-3 is full"}],
    )
    with node(changes={"GET /v1/cluster": cluster}) as first:
        async with app_for(first.url).run_test(size=(100, 30)) as pilot:
            # 1m15: how long the dead node is away.
            what = ("no quorum: writes wait", "the disk of node-3 is full", "○ dead", "◐ suspect", "LOST 1/3", "1m15")
            await shown(pilot, *what)


async def test_cores_that_nodes_share_are_told_of() -> None:
    cluster = canned.cluster(canned.node(1, cpus=3, cpus_shared_with=[canned.NODE_IDS[1]]), canned.node(2, cpus=3))
    with node(changes={"GET /v1/cluster": cluster}) as first:
        async with app_for(first.url).run_test(size=(120, 35)) as pilot:
            await shown(pilot, "4/6 shared")


async def test_a_raised_level_is_told_in_words() -> None:
    with node() as first:
        first.events.append(event_block(8, "cluster.level_raised", "parvada", level=2, before=1))
        async with app_for(first.url).run_test(size=(120, 35)) as pilot:
            await shown(pilot, "feature level raised  parvada  level 2  before 1")


async def test_moves_to_another_node_by_itself_and_says_so() -> None:
    with node(1) as first, node(2) as second:
        async with app_for(first.url, second.url).run_test(size=(100, 30)) as pilot:
            await shown(pilot, "● node-1 ")
            await until("the event stream", lambda: bool(first.calls("GET", "/v1/events")))
            second.events.append(event_block(9, "epoch.begun", "3"))
            await asyncio.to_thread(first.stop)
            # At once: a silent node would be given up after an hour.
            await shown(pilot, "● node-2 (switched ", "Ray epoch begun")
            assert screen_text(pilot).count("model published") == 1, "events are neither lost nor shown twice"


async def test_a_hanging_node_is_left_too(clock: Clock) -> None:
    with node(1) as first, node(2) as second:
        async with app_for(first.url, second.url).run_test(size=(100, 30)) as pilot:
            await shown(pilot, "● node-1 ")
            stalled: list[Seen] = []

            def stall(seen: Seen) -> Answer:
                stalled.append(seen)
                return Answer(stall=True)

            first.script = stall
            await until("a call that nobody answers", lambda: bool(stalled))
            await clock.jump(3600.0)
            await shown(pilot, "● node-2 (switched ")


async def test_finds_nodes_that_nobody_configured() -> None:
    with node(2) as second:
        members = [canned.node(1), canned.node(2, api_port=second.port), canned.node(3)]
        with node(changes={"GET /v1/cluster": canned.cluster(*members)}) as first:
            async with app_for(first.url).run_test(size=(100, 30)) as pilot:
                await shown(pilot, "● node-1 ")
                await asyncio.to_thread(first.stop)
                await shown(pilot, "● node-2 (switched ")


async def test_keeps_the_last_picture_when_nobody_answers_and_comes_back_without_a_key() -> None:
    port = free_port()
    members = [canned.node(k, api_port=port) for k in (1, 2, 3)]
    only = {"GET /v1/cluster": canned.cluster(*members)}
    with node(1, port, only) as first:
        async with app_for(first.url).run_test(size=(100, 30)) as pilot:
            await shown(pilot, "● node-1 ")
            await asyncio.to_thread(first.stop)
            # spring: the last picture stays.
            await shown(pilot, "no node answers", "data is", "connection refused", "spring")
            assert pilot.app.screen.query_one("#body").has_class("-stale")
            with node(1, port, only):
                await shown(pilot, "● node-1 ", gone="no node answers")
                assert not pilot.app.screen.query_one("#body").has_class("-stale")


async def test_waits_for_a_cluster_that_is_not_there_yet() -> None:
    port = free_port()
    async with app_for(f"http://127.0.0.1:{port}").run_test(size=(80, 24)) as pilot:
        await shown(pilot, "connecting…")
        await shown(pilot, "connection refused")
        with node(1, port):
            await shown(pilot, "● node-1 ")


async def test_an_empty_cluster_says_what_to_do_next() -> None:
    empty: dict[str, Any] = {"GET /v1/jobs": {"jobs": []}, "GET /v1/stats": {"models": [], "nodes": []}}
    with node(changes=empty) as first:
        first.events = []
        async with app_for(first.url).run_test(size=(120, 35)) as pilot:
            await shown(pilot, "No job is running", "parvada train", "no predictions yet", "Nothing has happened yet")


async def test_a_refused_stream_of_events_is_told_in_its_pane_and_the_rest_works() -> None:
    refusal = problem(403, "forbidden", "this token may not read events")
    with node(changes={"GET /v1/events": refusal}) as first:
        async with app_for(first.url).run_test(size=(100, 30)) as pilot:
            await shown(pilot, "this token may not read events", "● alive")


async def test_pause_holds_the_picture_and_space_takes_one_look(clock: Clock) -> None:
    with node() as first:

        def asked() -> int:
            return len(first.calls("GET", "/v1/cluster"))

        async with app_for(first.url, interval=20.0).run_test(size=(100, 30)) as pilot:
            await shown(pilot, "● alive", "term 7")
            await clock.jump(20.0)
            await until("the next look", lambda: asked() == 2)
            await pilot.press("p")
            await shown(pilot, "paused")
            first.script = from_table(table(**{"GET /v1/cluster": canned.cluster(term=8)}))
            for _ in range(3):
                await clock.jump(20.0)
            assert "term 7" in screen_text(pilot)
            await pilot.press("space")
            await shown(pilot, "term 8", "paused")
            assert asked() == 3, "this look only, since the pause"
            await pilot.press("p")
            await shown(pilot, "term 8", gone="paused")
            await until("a look at once", lambda: asked() == 4)
            while asked() < 6:  # and others, each after its pause
                await clock.jump(20.0)
                await asyncio.sleep(0.01)


async def test_the_cursor_stays_on_its_node_through_refreshes_and_new_nodes() -> None:
    with node() as first:
        async with app_for(first.url).run_test(size=(100, 30)) as pilot:
            await shown(pilot, "node-3")
            await pilot.press("down", "down")
            nodes = pilot.app.screen.query_one(DataTable)
            grown = [canned.node(1, name="node-0", id="dd" * 16, leader=False), *(canned.node(k) for k in (1, 2, 3))]
            first.script = from_table(table(**{"GET /v1/cluster": canned.cluster(*grown)}))
            await shown(pilot, "node-0")
            assert nodes.cursor_row == 3
            assert nodes.ordered_rows[nodes.cursor_row].key.value == canned.NODE_IDS[2]


async def test_columns_follow_the_width_of_the_terminal() -> None:
    with node() as first:
        async with app_for(first.url).run_test(size=(120, 35)) as pilot:
            await shown(pilot, "blobs", "Requests")
            await pilot.resize_terminal(60, 20)
            await shown(pilot, "● alive", "spring", gone=("blobs", "Requests"))
            await pilot.resize_terminal(42, 12)
            await shown(pilot, "node-1", "node-2", "node-3", gone="Events")
            await pilot.resize_terminal(120, 35)
            await shown(pilot, "blobs", "Requests", "● alive")


async def test_help_opens_closes_and_q_quits() -> None:
    with node() as first:
        app = app_for(first.url)
        async with app.run_test(size=(80, 24)) as pilot:
            await shown(pilot, "● alive")
            await pilot.press("question_mark")
            await shown(pilot, "leader: orders all writes")
            await pilot.press("escape")
            await shown(pilot, "● alive", gone="leader: orders all writes")
            await pilot.press("q")
            await until("the end", lambda: not app.is_running)
        assert app.return_code == 0


@pytest.mark.parametrize("theme", ["textual-light", "ansi-dark", "nord"])
async def test_every_kind_of_theme_can_be_chosen(theme: str) -> None:
    with node() as first:
        async with app_for(first.url).run_test(size=(80, 24)) as pilot:
            await shown(pilot, "● alive")
            pilot.app.theme = theme
            await pilot.pause()
            await shown(pilot, "● alive", "0.973 RandomForest")


def plain_loop() -> float:
    """Processor seconds that this machine takes for 200,000 steps of a plain loop: some ten milliseconds."""
    begun, total = time.thread_time(), 0
    for step in range(200_000):
        total += step * step % 7
    return time.thread_time() - begun


async def test_ten_nodes_cost_next_to_nothing() -> None:
    """At the default pace of two seconds, a refresh and the ticks of two seconds take some percent of a core: as much
    as a few short loops, by turns in the same run."""
    members = [canned.node(1, id=f"{k:032}", name=f"node-{k}") for k in range(1, 11)]
    with node(changes={"GET /v1/cluster": canned.cluster(*members)}) as first:
        async with app_for(first.url, interval=2.0).run_test(size=(120, 35)) as pilot:
            await shown(pilot, "node-10", "model published")
            screen = pilot.app.screen
            costs, loops = [], []
            for _ in range(15):
                begun = time.thread_time()
                asked = len(first.calls("GET", "/v1/stats"))
                await pilot.press("space")
                await until("a refresh", lambda asked=asked: len(first.calls("GET", "/v1/stats")) > asked)  # type: ignore[misc]
                screen._each_second()  # type: ignore[attr-defined]
                screen._each_second()  # type: ignore[attr-defined]
                await pilot.pause()
                costs.append(time.thread_time() - begun)
                loops.append(plain_loop())
            assert statistics.median(costs) < 7 * statistics.median(loops), "2.5 is usual"
