"""The latest events, newest first."""

from collections.abc import Sequence

from rich.text import Text

from parvada.schema import EventRecord
from tui.text import Palette, clip, clock
from tui.widgets.panel import Panel

_WORDS = {
    "cluster.named": "cluster formed",
    "cluster.level_raised": "feature level raised",
    "cluster.dissolved": "cluster ended in favour of another",
    "member.joined": "joined",
    "member.updated": "has new addresses",
    "member.removed": "left for good",
    "epoch.begun": "Ray epoch begun",
    "epoch.announced": "Ray head is up",
    "dataset.added": "dataset added",
    "dataset.deleted": "dataset deleted",
    "job.submitted": "job submitted",
    "job.started": "job started",
    "job.resumed": "job resumed",
    "job.unit_finished": "dataset finished",
    "job.ended": "job ended",
    "job.cancelled": "job cancelled",
    "job.retried": "job retried",
    "model.published": "model published",
    "alias.moved": "alias moved",
    "alias.dropped": "alias dropped",
    "token.created": "token created",
    "token.revoked": "token revoked",
}
HIDDEN = frozenset({"job.folds_recorded", "resync"})
"""Too many to read (the jobs' bars show them), and what concerns the stream alone."""
_SHOWN_DETAIL = 4


class EventsPanel(Panel):
    """Given the events of the screen, oldest first, and the names of nodes."""

    events: Sequence[EventRecord] = ()
    names: dict[str, str] = {}  # noqa: RUF012 - replaced, never changed
    trouble: str = ""

    def show(self, events: Sequence[EventRecord], names: dict[str, str], trouble: str) -> None:
        self.events, self.names, self.trouble = events, names, trouble
        self.redraw()

    def draw(self) -> Text:
        p = self.palette
        lines = [Text(f"▲ {self.trouble}", style=p.warn, no_wrap=True, overflow="ellipsis")] if self.trouble else []
        lines += [self._line(event, p) for event in reversed(self.events)]
        if not lines:
            return Text("Nothing has happened yet.", style=p.dim)
        return Text("\n").join(lines[:100])

    def _line(self, event: EventRecord, p: Palette) -> Text:
        word = _WORDS.get(event.kind, event.kind.replace(".", " ").replace("_", " "))
        subject = self.names.get(event.subject, event.subject)
        if len(subject) > 24:
            subject = clip(subject, 13)
        line = Text.assemble((clock(event.at), p.dim), "  ", (word, _colour(event, p)), "  ", (subject, "bold"))
        for name, value in list(event.detail.items())[:_SHOWN_DETAIL]:
            shown = self.names.get(str(value), str(value))
            if shown and not isinstance(value, dict | list):
                line.append(f"  {name} ", style=p.dim).append(clip(shown, 24))
        line.no_wrap = True
        line.truncate(self.inner_width, overflow="ellipsis")
        return line


def _colour(event: EventRecord, p: Palette) -> str:
    if event.detail.get("state") == "failed" or event.kind in ("member.removed", "job.cancelled"):
        return p.bad
    family = event.kind.partition(".")[0]
    return {"member": p.accent, "epoch": p.warn, "model": p.good, "alias": p.good, "job": p.second}.get(family, p.text)
