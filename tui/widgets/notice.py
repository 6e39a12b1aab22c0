"""The line under the header that is there only when something needs eyes: no node, no quorum, alarms, old data."""

from rich.text import Text

from tui.snapshot import Snapshot
from tui.text import brief
from tui.widgets.panel import Panel


class Notice(Panel):
    """Hidden while all is well."""

    snapshot: Snapshot | None = None
    lost: str | None = None
    tried: int = 0

    def show(self, snapshot: Snapshot | None, lost: str | None, tried: int) -> None:
        self.snapshot, self.lost, self.tried = snapshot, lost, tried
        lines = self._lines()
        self.display = bool(lines)
        self.redraw()

    def draw(self) -> Text:
        lines = [Text(line) for line in self._lines()]
        for line in lines:
            line.truncate(self.inner_width, overflow="ellipsis")
        return Text("\n").join(lines)

    def _lines(self) -> list[str]:
        if self.lost is not None:
            return [f" ▲ {self.lost}", f"   trying {self.tried} addresses until one answers; nothing to do here"]
        if self.snapshot is None:
            return []
        cluster = self.snapshot.cluster
        lines = []
        if not cluster.quorum:
            age = self.snapshot.stale_seconds
            known = f"; this is what the node knew {brief(age)} ago" if age is not None else ""
            lines.append(f" ▲ no quorum: writes wait, predictions go on{known}")
        return lines + [f" ▲ {alarm.message}" for alarm in cluster.alarms[:3]]
