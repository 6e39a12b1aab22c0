"""The two lines at the top: which node this is, how the cluster does, and how fresh the picture is."""

import time

from rich.text import Text

from tui.snapshot import Snapshot
from tui.text import Palette, brief, rate
from tui.widgets.panel import Panel

SWITCH_SHOWN_SECONDS = 20.0


class Headline(Panel):
    """Given a snapshot and what the screen knows of the connection."""

    snapshot: Snapshot | None = None
    switched_at: float | None = None
    lost_since: float | None = None
    paused: bool = False
    interval: float = 2.0

    def show(
        self,
        snapshot: Snapshot | None,
        *,
        switched_at: float | None,
        lost_since: float | None,
        paused: bool,
        interval: float,
    ) -> None:
        self.snapshot, self.switched_at, self.lost_since = snapshot, switched_at, lost_since
        self.paused, self.interval = paused, interval
        self.redraw()

    def draw(self) -> Text:
        now, p = time.monotonic(), self.palette
        first = _spread(self._where(now, p), self._pace(now, p), self.inner_width)
        return Text("\n").join([first, self._health(p)])

    def _where(self, now: float, p: Palette) -> Text:
        line = Text(no_wrap=True)
        if self.snapshot is None:
            return line.append(" parvada", style=f"bold {p.accent}").append("  connecting…", style=p.dim)
        line.append(f" {self.snapshot.cluster.name}", style=f"bold {p.accent}")
        if self.lost_since is not None:
            return line.append(f"  ▲ no node answers ({brief(now - self.lost_since)})", style=f"bold {p.bad}")
        line.append("  ● ", style=p.good).append(self.snapshot.attached_to, style="bold")
        if self.switched_at is not None and now - self.switched_at < SWITCH_SHOWN_SECONDS:
            line.append(f" (switched {brief(now - self.switched_at)} ago)", style=p.warn)
        return line

    def _pace(self, now: float, p: Palette) -> Text:
        if self.paused:
            age = f" · {brief(now - self.snapshot.taken_at)} old" if self.snapshot else ""
            return Text(f"‖ paused{age} ", style=f"bold {p.warn}")
        if self.lost_since is not None and self.snapshot is not None:
            return Text(f"data is {brief(now - self.snapshot.taken_at)} old ", style=p.warn)
        return Text(f"{time.strftime('%H:%M:%S')} ⟳ {self.interval:g} s ", style=p.dim)

    def _health(self, p: Palette) -> Text:
        if self.snapshot is None:
            return Text()
        for words in ((" · ", "leader ", "term ", "epoch ", "ray head ", "quorum ", " req/s"),
                      (" · ", "leader ", "term ", "epoch ", "ray ", "quorum ", "/s"),
                      (" ", "★", "t", "e", "◆", "", "/s")):  # fmt: skip
            line = self._facts(self.snapshot, p, *words)
            if line.cell_len <= self.inner_width:
                break
        return line if self.lost_since is None else Text(line.plain, style=p.dim, no_wrap=True)

    def _facts(
        self, seen: Snapshot, p: Palette, dot: str, leader: str, term: str, epoch: str, ray: str, quorum: str, rps: str
    ) -> Text:
        cluster = seen.cluster
        alive = sum(node.id in cluster.voters and node.state in ("alive", "draining") for node in cluster.nodes)
        held = f"{quorum}{'ok' if cluster.quorum else 'LOST'} {alive}/{len(cluster.voters)}"
        leading = Text.assemble((f" {leader}", p.dim), (seen.name_of(cluster.leader), "" if cluster.leader else p.bad))
        facts = [
            leading,
            Text.assemble((term, p.dim), str(cluster.term)),
            Text.assemble((epoch, p.dim), str(cluster.ray.epoch)),
            Text.assemble((ray, p.dim), seen.name_of(cluster.ray.head)),
            Text(held, style=p.good if cluster.quorum else f"bold {p.bad}"),
            Text.assemble((rate(seen.requests_per_second), "bold"), (rps, p.dim)),
        ]
        line = Text(no_wrap=True)
        for number, fact in enumerate(facts):
            line.append(dot if number else "", style=p.faint).append_text(fact)
        return line


def _spread(left: Text, right: Text, width: int) -> Text:
    """Left and right on one line; the right part goes first when there is no room."""
    gap = width - left.cell_len - right.cell_len
    return Text.assemble(left, " " * gap, right) if gap >= 1 else left
