"""What commands print: aligned tables, JSON, and quantities in words. Colour only where a person looks."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

_STATE_COLOURS = {
    "alive": "green",
    "up": "green",
    "succeeded": "green",
    "ok": "green",
    "suspect": "yellow",
    "starting": "yellow",
    "draining": "yellow",
    "running": "cyan",
    "cancelled": "yellow",
    "dead": "red",
    "down": "red",
    "failed": "red",
}


def print_json(value: Any) -> None:
    """A value of the API as indented JSON."""
    click.echo(msgspec.json.format(msgspec.json.encode(value), indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], empty: str = "") -> None:
    """Columns aligned by spaces, as `docker ps` does. `empty` goes to stderr when there is no row."""
    if not rows:
        click.echo(empty, err=True)
        return
    table = [[name.upper() for name in columns], *rows]
    widths = [max(len(click.unstyle(row[i])) for row in table) for i in range(len(columns))]
    for row in table:
        cells = [cell + " " * (width - len(click.unstyle(cell))) for cell, width in zip(row, widths, strict=True)]
        click.echo("  ".join(cells).rstrip(), color=colour())


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Name and value, a line each."""
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        click.echo(f"{name:<{width}}  {value}", color=colour())


def colour() -> bool | None:
    """False under NO_COLOR, else click's own judgement (a terminal or not)."""
    return False if os.environ.get("NO_COLOR") else None


def state(name: str) -> str:
    """A state in its colour."""
    return click.style(name, fg=_STATE_COLOURS[name]) if name in _STATE_COLOURS else name


def size(count: float | None) -> str:
    """Bytes in binary units."""
    if count is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def number(value: float | None, digits: int = 4) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def duration(seconds: float | None) -> str:
    """Seconds in words."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def age(moment: str | None, now: datetime | None = None) -> str:
    """How long ago an ISO time was."""
    if moment is None:
        return "–"
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(moment)).total_seconds()
    if seconds < 3:
        return "now"
    if seconds < 86400:
        return f"{duration(int(seconds))} ago"
    return f"{seconds / 86400:.0f} d ago"


def clock(moment: str) -> str:
    """An ISO time as the local time of day."""
    return datetime.fromisoformat(moment).astimezone().strftime("%Y-%m-%d %H:%M:%S")
