"""The application: theme, styles, the one client, and the first screen. `parvada top` calls `run`."""

from pathlib import Path

import msgspec
from textual.app import App

from parvada._session import Token
from parvada.aio import AsyncClient
from tui.screens.overview import OverviewScreen
from tui.theme import DUSK


class TopOptions(msgspec.Struct, frozen=True):
    """`urls` in the order in which they are preferred; `interval` in seconds."""

    urls: tuple[str, ...]
    token: Token = None
    """May be a callable, asked only if a node demands a token."""
    interval: float = 2.0
    silence: float = 2.0
    """A node that says nothing for so many seconds is passed over: a paused node must not hold the picture."""
    patience: float = 4.0
    """Seconds for which other nodes are tried before the picture counts as old."""

    def __repr__(self) -> str:
        return f"TopOptions(urls={self.urls}, interval={self.interval})"


class ParvadaApp(App[None]):
    """The terminal UI."""

    TITLE = "Parvada"
    CSS_PATH = Path(__file__).with_name("app.tcss")
    ENABLE_COMMAND_PALETTE = True

    def __init__(self, options: TopOptions) -> None:
        super().__init__()
        self._options = options
        self._client = AsyncClient(
            list(options.urls), options.token, timeout=options.silence, patience=options.patience
        )

    def on_mount(self) -> None:
        self.register_theme(DUSK)
        self.theme = DUSK.name
        self.push_screen(OverviewScreen(self._client, self._options.interval))

    async def on_unmount(self) -> None:
        await self._client.close()


def run(options: TopOptions) -> None:
    """Show the UI until the user quits."""
    ParvadaApp(options).run()
