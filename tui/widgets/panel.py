"""The base of all panes that draw text: palette, inner width, and drawing again when either changes."""

from rich.text import Text
from textual.events import Resize
from textual.widgets import Static

from tui.text import Palette, palette_of


class Panel(Static):
    """Draws what `draw` returns. Subclasses keep what they were given and call `redraw`."""

    def on_mount(self) -> None:
        self.app.theme_changed_signal.subscribe(self, lambda _theme: self.redraw())
        self.redraw()

    def on_resize(self, _: Resize) -> None:
        self.redraw()

    @property
    def palette(self) -> Palette:
        return palette_of(self.app.theme_variables)

    @property
    def inner_width(self) -> int:
        """Cells for text; a guess before the first layout."""
        return self.content_size.width or 40

    def redraw(self) -> None:
        if self.is_mounted:
            self.update(self.draw())

    def draw(self) -> Text:
        raise NotImplementedError
