"""The help: keys and signs."""

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

HELP = """\
[b]Keys[/b]
  [b $accent]space[/]   refresh now            [b $accent]p[/]       pause, go on
  [b $accent]↑ ↓[/]     move in the table      [b $accent]tab[/]     next pane
  [b $accent]ctrl+p[/]  palette, themes        [b $accent]q[/]       quit

[b]Signs[/b]
  [$warning]★[/] leader: orders all writes      [$accent]◆[/] head: plans the training
  [$success]●[/] alive   [$warning]◐[/] suspect   [$error]○[/] dead   [$primary]◌[/] draining
  [b]blobs[/b] copies of data and models kept here, + yet to come

[b]Good to know[/b]
  When a node dies, the picture moves to another by itself.
  When none answers, the last picture stays, grey, with its age.
  For scripts: [b]parvada status[/b], [b]jobs ls[/b], [b]events[/b], with --json.
"""


class HelpScreen(ModalScreen[None]):
    """Closed by any of the keys that a person would try."""

    BINDINGS = [Binding("escape,q,question_mark,enter,space", "dismiss", "Close", show=True)]  # noqa: RUF012

    def compose(self) -> ComposeResult:
        box = VerticalScroll(Static(HELP), id="help")
        box.border_title = "Help"
        box.border_subtitle = "esc closes"
        yield box
