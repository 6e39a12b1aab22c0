"""Quantities as characters: bars, curves, sizes and times. Pure functions; colour comes from the palette given."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec
from rich.color import Color, ColorParseError
from rich.text import Text

BLOCKS = " ▁▂▃▄▅▆▇█"
FULL, HALF, EMPTY = "━", "╸", "━"


class Palette(msgspec.Struct, frozen=True):
    """Rich colour names of the current theme."""

    good: str
    warn: str
    bad: str
    accent: str
    second: str
    text: str
    dim: str
    faint: str


def palette_of(variables: Mapping[str, str]) -> Palette:
    """The palette of a theme, from Textual's theme variables."""

    def colour(name: str, fallback: str) -> str:
        value = (variables.get(name) or fallback).split(" ")[0].removeprefix("ansi_")
        try:
            Color.parse(value)
        except ColorParseError:  # Textual's own words, such as "auto" or "transparent"
            return fallback
        return value

    return Palette(
        good=colour("success", "green"),
        warn=colour("warning", "yellow"),
        bad=colour("error", "red"),
        accent=colour("primary", "cyan"),
        second=colour("accent", "magenta"),
        text=colour("foreground", "white"),
        dim=colour("foreground-darken-2", "bright_black"),
        faint=colour("panel-lighten-1", "bright_black"),
    )


def bar(fraction: float, width: int, colour: str, rest: str) -> Text:
    """A progress bar of `width` cells; `fraction` is clipped to 0..1."""
    halves = round(min(max(fraction, 0.0), 1.0) * width * 2)
    done, half = divmod(halves, 2)
    return Text.assemble((FULL * done + HALF * half, colour), (EMPTY * (width - done - half), rest))


def sparkline(values: Sequence[float | None], width: int, top: float) -> str:
    """The last `width` values as one row of blocks, right-aligned; `top` is the value of a full block."""
    return area(values, width, 1, top)[0]


def area(values: Sequence[float | None], width: int, height: int, top: float) -> list[str]:
    """The last `width` values as rows of blocks, the highest row first. A gap (None) stays empty, zero does not."""
    known = list(values)[-width:] if width > 0 else []
    gap: list[float | None] = [None]
    shown = gap * (width - len(known)) + known
    eighths = [
        0 if value is None else max(1, round(min(value / top, 1.0) * height * 8)) if top > 0 else 1 for value in shown
    ]
    return ["".join(BLOCKS[min(max(level - 8 * row, 0), 8)] for level in eighths) for row in reversed(range(height))]


def nice_top(values: Sequence[float | None]) -> float:
    """A round upper end for an axis: 1, 2 or 5 times a power of ten, at least 1."""
    peak = max((value for value in values if value is not None), default=0.0)
    scale = 1.0
    while True:
        for step in (1.0, 2.0, 5.0):
            if peak <= step * scale:
                return step * scale
        scale *= 10


def size(count: float | None) -> str:
    """Bytes in at most four characters: `812M`, `1.2G`, `24G`."""
    if count is None:
        return "–"
    for unit in ("B", "K", "M", "G"):
        if round(count) < 1000:
            return f"{count:.1f}{unit}" if unit == "G" and count < 9.95 else f"{count:.0f}{unit}"
        count /= 1024
    return f"{count:.1f}T" if count < 9.95 else f"{count:.0f}T"


def brief(seconds: float | None) -> str:
    """A duration in at most six characters: `8 s`, `2m 05s` as `2m05`, `1h20`."""
    if seconds is None:
        return "–"
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 or value == 0 else f"{value:.1f}"


def clock(moment: str) -> str:
    """The local time of day of an ISO time."""
    return datetime.fromisoformat(moment).astimezone().strftime("%H:%M:%S")


def seconds_between(earlier: str | None, later: str | None) -> float | None:
    """Seconds between two ISO times of the cluster's own clocks; None if one is missing."""
    if earlier is None or later is None:
        return None
    return (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()


def clip(text: str, width: int) -> str:
    """At most `width` characters, with an ellipsis where some are missing."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
