"""The first screen: is the cluster well, and what is it doing. Handlers alone change its state."""

import time
from collections import deque

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.events import Resize
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Footer

from parvada.aio import AsyncClient
from parvada.schema import EventRecord
from tui.feed import Arrived, EventsLost, Happened, Lost, listen, poll, poll_once
from tui.screens.help import HelpScreen
from tui.snapshot import History, Snapshot
from tui.widgets.events import HIDDEN, EventsPanel
from tui.widgets.headline import Headline
from tui.widgets.jobs import JobsPanel
from tui.widgets.nodes import NodesTable
from tui.widgets.notice import Notice
from tui.widgets.ray import RayPanel
from tui.widgets.traffic import TrafficPanel

EVENTS_KEPT = 200
EVENTS_REDRAW_SECONDS = 0.25
LOOK_BACK = 1000
"""Log indexes before now whose events are asked for at the start; a node remembers no more than it can."""


class OverviewScreen(Screen[None]):
    """Health first, then work."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (72, "-normal"), (100, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (16, "-tall")]  # noqa: RUF012
    BINDINGS = [  # noqa: RUF012
        Binding("q", "app.quit", "Quit", id="quit", tooltip="Leave; the cluster goes on"),
        Binding("question_mark", "help", "Help", id="help", key_display="?"),
        Binding("p", "pause", "Pause", id="pause", tooltip="Hold the picture, or go on"),
        Binding("space", "refresh_now", "Refresh", id="refresh"),
    ]

    def __init__(self, client: AsyncClient, interval: float) -> None:
        super().__init__()
        self._client = client
        self._interval = interval
        self._snapshot: Snapshot | None = None
        self._history = History()
        self._recent: deque[EventRecord] = deque(maxlen=EVENTS_KEPT)
        self._events_trouble = ""
        self._events_due: Timer | None = None
        self._last_event = 0
        self._lost_since: float | None = None
        self._lost_reason = ""
        self._switched_at: float | None = None
        self._paused = False

    def compose(self) -> ComposeResult:
        yield Headline(id="headline")
        yield Notice(id="notice")
        with Vertical(id="body"):
            yield NodesTable(id="nodes")
            with Horizontal(id="lower"):
                with Vertical(id="main"):
                    yield VerticalScroll(JobsPanel(id="jobs"), id="jobs-pane")
                    yield VerticalScroll(EventsPanel(id="events"), id="events-pane")
                with Vertical(id="side"):
                    yield RayPanel(id="ray")
                    yield TrafficPanel(id="traffic")
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self._label("#nodes", "Nodes", "★ leader  ◆ ray head")
        self._label("#jobs-pane", "Jobs")
        self._label("#events-pane", "Events")
        self._label("#ray", "Ray")
        self._label("#traffic", "Requests")
        self.query_one(NodesTable).focus()
        self.query_one(NodesTable).loading = True
        self._start_polling()
        self.set_interval(1.0, self._each_second)

    def _label(self, selector: str, title: str, subtitle: str = "") -> None:
        pane = self.query_one(selector)
        pane.border_title, pane.border_subtitle = title, subtitle

    # ------------------------------------------------------------ workers
    def _start_polling(self) -> None:
        work = poll(self._client, self.post_message, self._interval)
        self.run_worker(work, name="poll", group="poll", exclusive=True)

    def _start_listening(self) -> None:
        work = listen(self._client, self.post_message, self._last_event)
        self.run_worker(work, name="listen", group="listen", exclusive=True)

    # ------------------------------------------------------------ messages
    @on(Arrived)
    def _arrived(self, message: Arrived) -> None:
        seen, before = message.snapshot, self._snapshot
        if before is None:
            self._last_event = max(0, seen.cluster.applied_index - LOOK_BACK)
            self._start_listening()
        elif before.url != seen.url:
            self._switched_at = time.monotonic()
            self._start_listening()
        self._snapshot, self._lost_since = seen, None
        self._history.add(seen)
        self._paint(seen)

    @on(Lost)
    def _lost(self, message: Lost) -> None:
        if self._lost_since is None:
            self._lost_since = time.monotonic()
        self._lost_reason = message.reason
        self._history.add_gap()
        self._paint_state()

    @on(Happened)
    def _happened(self, message: Happened) -> None:
        event = message.event
        self._events_trouble = ""
        if event.index >= self._last_event and event.kind not in HIDDEN:
            self._recent.append(event)
        self._last_event = max(self._last_event, event.index)
        self._paint_events_soon()

    @on(EventsLost)
    def _events_lost(self, message: EventsLost) -> None:
        if self._lost_since is None:
            self._events_trouble = message.reason
        self._paint_events_soon()

    def on_resize(self, _: Resize) -> None:
        if self._snapshot is not None:
            self.query_one(NodesTable).show(self._snapshot, self._history, self.size.width)

    # ------------------------------------------------------------ actions
    def action_pause(self) -> None:
        self._paused = not self._paused
        if self._paused:
            self.workers.cancel_group(self, "poll")
        else:
            self._start_polling()
        self._paint_state()

    def action_refresh_now(self) -> None:
        if self._paused:
            work = poll_once(self._client, self.post_message)
            self.run_worker(work, name="poll once", group="poll", exclusive=True)
        else:
            self._start_polling()

    def action_help(self) -> None:
        self.app.push_screen(HelpScreen())

    # ------------------------------------------------------------ drawing
    def _each_second(self) -> None:
        self._paint_state()

    def _paint(self, seen: Snapshot) -> None:
        table = self.query_one(NodesTable)
        table.loading = False
        table.show(seen, self._history, self.size.width)
        alive = sum(node.state in ("alive", "draining") for node in seen.cluster.nodes)
        table.border_title = f"Nodes {alive}/{len(seen.cluster.nodes)}"
        self.query_one(JobsPanel).show(seen.jobs)
        self.query_one("#jobs-pane").border_title = f"Jobs {len(seen.jobs)}" if seen.jobs else "Jobs"
        self.query_one(RayPanel).show(seen)
        traffic = self.query_one(TrafficPanel)
        traffic.show(seen, self._history)
        traffic.border_title = f"Requests {seen.requests_per_second:.1f}/s"
        self._paint_events()
        self._paint_state()

    def _paint_state(self) -> None:
        lost = self._lost_reason if self._lost_since is not None else None
        self.query_one("#body").set_class(lost is not None, "-stale")
        if self._snapshot is None and lost is not None:
            self.query_one(NodesTable).loading = False
        self.query_one(Headline).show(
            self._snapshot,
            switched_at=self._switched_at,
            lost_since=self._lost_since,
            paused=self._paused,
            interval=self._interval,
        )
        self.query_one(Notice).show(self._snapshot, lost, len(self._client.urls))

    def _paint_events_soon(self) -> None:
        if self._events_due is None:
            self._events_due = self.set_timer(EVENTS_REDRAW_SECONDS, self._paint_events)

    def _paint_events(self) -> None:
        self._events_due = None
        nodes = self._snapshot.cluster.nodes if self._snapshot is not None else []
        names = {node.id: node.name for node in nodes}
        self.query_one(EventsPanel).show(tuple(self._recent), names, self._events_trouble)
