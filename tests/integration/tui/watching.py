"""The app against scripted nodes: its servers, what a person sees of it, and waiting for that."""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from textual.pilot import Pilot

from tests.unit.parvada import canned
from tests.unit.parvada.scripted import ScriptedNode, event_block, from_table
from tui.app import ParvadaApp, TopOptions

STATS = {
    "models": [{"model": "iris", "version": 3, "requests": 900, "rate": 48.2, "p50": 1.2, "p99": 4.7, "errors": 2}],
    "nodes": [],
}


def table(**changes: Any) -> dict[str, Any]:
    def jobs(seen: Any) -> Any:
        return {"jobs": [canned.job("01kabc")] if seen.query["state"] == "running" else []}

    return {
        "GET /v1/cluster": canned.cluster(),
        "GET /v1/jobs": jobs,
        "GET /v1/stats": STATS,
        "GET /v1/events": None,
        **changes,
    }


def node(number: int = 1, port: int = 0, changes: Mapping[str, Any] | None = None) -> ScriptedNode:
    made = ScriptedNode(from_table(table(**(changes or {}))), canned.NODE_IDS[number - 1], port)
    made.events = [
        event_block(5, "member.joined", canned.NODE_IDS[1]),
        event_block(7, "model.published", "iris", version=3),
    ]
    return made


def app_for(*urls: str, interval: float = 0.05, silence: float = 3600.0) -> ParvadaApp:
    """A node that is slow for once, on a busy machine, is not taken for one that hangs."""
    return ParvadaApp(TopOptions(urls=urls, interval=interval, silence=silence, patience=1.0))


def screen_text(pilot: Pilot[Any]) -> str:
    """All that a person sees, line by line."""
    screen = pilot.app.screen
    lines = screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in line) for line in lines)


async def shown(pilot: Pilot[Any], *words: str, timeout: float = 60.0, gone: str | tuple[str, ...] = ()) -> str:
    """Wait until all words are on the screen (and what is `gone` is not); returns the text."""
    unwanted = (gone,) if isinstance(gone, str) else gone
    deadline = time.monotonic() + timeout
    while True:
        text = screen_text(pilot)
        if all(word in text for word in words) and not any(word in text for word in unwanted):
            return text
        assert time.monotonic() < deadline, f"waited for {words} without {gone!r}, saw\n{text}"
        await pilot.pause(0.02)


async def looks(pilot: Pilot[Any], right: Callable[[list[str]], None], timeout: float = 60.0) -> None:
    """Wait until `right`, given the lines of the screen, asserts nothing against them.

    What changes the number of lines of a pane is drawn into the old size first, and laid out a moment later: one look
    may see half of it.
    """
    deadline = time.monotonic() + timeout
    while True:
        text = screen_text(pilot)
        try:
            return right(text.splitlines())
        except AssertionError as error:
            if time.monotonic() >= deadline:
                raise AssertionError(f"{error}, saw\n{text}") from error
        await pilot.pause(0.02)


async def until(what: str, condition: Callable[[], bool], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited for {what}"
        await asyncio.sleep(0.01)
