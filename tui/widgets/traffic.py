"""Predictions: requests per second over the last minutes, and the busiest model versions."""

from collections.abc import Sequence

from rich.text import Text

from parvada.schema import ModelLoad
from tui.snapshot import History, Snapshot
from tui.text import Palette, area, clip, nice_top, rate
from tui.widgets.panel import Panel

CURVE_ROWS = (3, 8)
"""At least and at most; between them as many as the pane has."""
MODELS_SHOWN = 4
NAME_CELLS = 10


class TrafficPanel(Panel):
    """Given a snapshot and the history."""

    snapshot: Snapshot | None = None
    curve: Sequence[float | None] = ()

    def show(self, snapshot: Snapshot, history: History) -> None:
        self.snapshot, self.curve = snapshot, tuple(history.requests)
        self.redraw()

    def draw(self) -> Text:
        p = self.palette
        if self.snapshot is None:
            return Text("waiting…", style=p.dim)
        return Text("\n").join([*self._curve(p), *self._models(self.snapshot, p)])

    def _curve(self, p: Palette) -> list[Text]:
        height = min(max(self.content_size.height - MODELS_SHOWN - 1, CURVE_ROWS[0]), CURVE_ROWS[1])
        top = nice_top(self.curve[-self.inner_width :])
        label = f"{top:g}"
        width = max(1, self.inner_width - max(len(label), 2) - 1)
        rows = area(self.curve, width, height, top)
        ends = [label, *[""] * (height - 2), "0"]
        room = self.inner_width - width - 1
        return [Text.assemble((f"{end:>{room}} ", p.dim), (row, p.accent)) for end, row in zip(ends, rows, strict=True)]

    def _models(self, seen: Snapshot, p: Palette) -> list[Text]:
        busiest = sorted(seen.stats.models, key=lambda load: (-load.rate, -load.requests, load.model))[:MODELS_SHOWN]
        if not busiest:
            return [Text("no predictions yet: parvada predict MODEL", style=p.dim, no_wrap=True, overflow="ellipsis")]
        return [_load(load, self.inner_width, p) for load in busiest]


def _load(load: ModelLoad, width: int, p: Palette) -> Text:
    errors = Text(f"  {load.errors} err" if load.errors else "", style=p.bad)
    for latency in (f"  p50 {load.p50:.1f}  p99 {load.p99:.1f} ms", f"  p99 {load.p99:.1f} ms", ""):
        right = Text.assemble(f"{rate(load.rate)}/s", (latency, p.dim), errors)
        if width - right.cell_len > NAME_CELLS:
            break
    room = max(1, width - right.cell_len - 1)
    return Text.assemble(clip(f"{load.model} v{load.version}", room).ljust(room), " ", right, no_wrap=True)
