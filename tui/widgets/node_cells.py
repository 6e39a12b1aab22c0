"""How each column of the nodes table shows a node. Pure: a view and the room in cells give a text."""

from collections.abc import Callable, Sequence

import msgspec
from rich.text import Text

from parvada.schema import Node
from tui.text import Palette, bar, brief, clip, rate, seconds_between, size, sparkline

_DOTS = {"alive": "●", "suspect": "◐", "dead": "○", "draining": "◌"}


class NodeView(msgspec.Struct, frozen=True):
    """A node, its CPU curve (percent) and the newest `last_seen` of all nodes: ages are told by the cluster's own
    clocks, so that this machine's clock does not matter."""

    node: Node
    cpu: Sequence[float | None]
    newest: str | None
    palette: Palette

    @property
    def gone(self) -> bool:
        return self.node.state == "dead"

    @property
    def quiet(self) -> str:
        """Style of what is not worth a look."""
        return self.palette.dim


def _name(view: NodeView, room: int) -> Text:
    return Text(clip(view.node.name, room), style=view.quiet if view.gone else "bold")


def _role(view: NodeView, room: int) -> Text:
    return Text(clip(view.node.role, room), style=view.quiet if view.gone else "")


def _state(view: NodeView, room: int) -> Text:
    p = view.palette
    colour = {"alive": p.good, "suspect": p.warn, "dead": p.bad, "draining": p.accent}[view.node.state]
    return Text(clip(f"{_DOTS[view.node.state]} {view.node.state}", room), style=colour)


def _marks(view: NodeView, room: int) -> Text:
    star = ("★", view.palette.warn) if view.node.leader else (" ", "")
    diamond = ("◆", view.palette.second) if view.node.ray_head else (" ", "")
    return Text.assemble(star, " ", diamond)


def _cpu(view: NodeView, room: int) -> Text:
    percent, p = view.node.cpu_percent, view.palette
    if percent is None or view.gone:
        return Text("–", style=view.quiet)
    colour = p.good if percent < 60 else p.warn if percent < 85 else p.bad
    line = Text(f"{percent:3.0f}% ", style=colour)
    if room < 20:
        return line.append_text(bar(percent / 100, room - 5, colour, p.faint))
    line.append_text(bar(percent / 100, 8, colour, p.faint))
    return line.append(" " + sparkline(view.cpu, room - 14, 100.0), style=p.accent)


def _memory(view: NodeView, room: int) -> Text:
    if view.node.memory_bytes is None or view.gone:
        return Text("–", style=view.quiet)
    text = Text(f"{size(view.node.memory_bytes):>5}")
    return text.append(f" / {size(view.node.memory_total_bytes)}", style=view.quiet) if room >= 12 else text


def _rate(view: NodeView, room: int) -> Text:
    if view.gone:
        return Text("–".rjust(room), style=view.quiet)
    value = view.node.requests_per_second
    return Text(rate(value).rjust(room), style="" if value else view.quiet)


def _blobs(view: NodeView, room: int) -> Text:
    held, owed = view.node.blobs.held, view.node.blobs.owed
    text = f"{held} +{owed}" if owed else str(held)
    return Text(text.rjust(room), style=view.palette.warn if owed else view.quiet)


def _seen(view: NodeView, room: int) -> Text:
    away = seconds_between(view.node.last_seen, view.newest)
    if away is None:
        return Text("–".rjust(room), style=view.quiet)
    late = away >= 3 and view.node.state != "alive"
    return Text(("now" if away < 3 else brief(away)).rjust(room), style=view.palette.warn if late else view.quiet)


CELLS: dict[str, Callable[[NodeView, int], Text]] = {
    "name": _name,
    "role": _role,
    "state": _state,
    "marks": _marks,
    "cpu": _cpu,
    "memory": _memory,
    "rate": _rate,
    "blobs": _blobs,
    "seen": _seen,
}
