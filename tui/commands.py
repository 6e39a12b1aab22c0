"""`top`: what the command line loads to open the terminal UI. Textual is imported when it does."""

import sys

import click

from parvada.cli.exits import Failure
from parvada.cli.settings import Settings, connected


@click.command(short_help="Open the terminal UI.")
@click.option("--interval", type=click.FloatRange(0.5, 60), default=2.0, show_default=True, help="Seconds.")
@connected
def top(settings: Settings, interval: float) -> None:
    """Open the terminal UI: nodes, leader, Ray, jobs and events, live. It moves to another node by itself."""
    if not sys.stdout.isatty():
        raise Failure("the terminal UI needs a terminal", "`parvada status --watch` works without one")
    from tui.app import TopOptions, run

    run(TopOptions(urls=settings.urls, token=settings.token or settings.derived_token, interval=interval))
