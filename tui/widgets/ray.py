"""The compute side: the Ray epoch, its head, its nodes and how busy they are."""

from rich.text import Text

from tui.snapshot import Snapshot
from tui.text import bar
from tui.widgets.panel import Panel


class RayPanel(Panel):
    """Given a snapshot."""

    snapshot: Snapshot | None = None

    def show(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.redraw()

    def draw(self) -> Text:
        p = self.palette
        if self.snapshot is None:
            return Text("waiting…", style=p.dim)
        ray = self.snapshot.cluster.ray
        dot, colour = {"up": ("●", p.good), "starting": ("◐", p.warn), "down": ("○", p.bad)}[ray.state]
        mode = "" if ray.mode == "ray" else " · without Ray"
        state = Text.assemble((f"{dot} {ray.state}", colour), (f" · epoch {ray.epoch}{mode}", p.dim))
        head = Text.assemble(
            ("head  ", p.dim), (self.snapshot.name_of(ray.head), "bold"), (f" ◆ {ray.address or ''}", p.dim)
        )
        names = ", ".join(self.snapshot.name_of(node) for node in ray.nodes) or "none"
        fits = len(names) <= self.inner_width - 6
        nodes = Text.assemble(("nodes ", p.dim), names if fits else str(len(ray.nodes)))
        cpus = Text.assemble(("cpus  ", p.dim))
        shared = any(node.cpus_shared_with for node in self.snapshot.cluster.nodes)
        words = f" {ray.cpus_used:g}/{ray.cpus:g}{' shared' if shared else ''}"
        share = ray.cpus_used / ray.cpus if ray.cpus else 0.0
        cpus.append_text(bar(share, max(4, self.inner_width - 6 - len(words)), p.accent, p.faint)).append(words)
        lines = [state, head, nodes, cpus]
        for line in lines:
            line.no_wrap = True
            line.truncate(self.inner_width, overflow="ellipsis")
        return Text("\n").join(lines)
