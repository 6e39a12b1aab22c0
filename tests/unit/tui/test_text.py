"""Bars, curves and quantities keep their promises at every width."""

import pytest
from hypothesis import given, strategies as st
from rich.style import Style

from tui.text import Palette, area, bar, brief, clip, nice_top, palette_of, size, sparkline

values = st.lists(st.one_of(st.none(), st.floats(0, 1e6)), max_size=200)


@given(st.floats(allow_nan=False), st.integers(1, 80))
def test_a_bar_always_fills_its_room(fraction: float, width: int) -> None:
    assert bar(fraction, width, "red", "blue").cell_len == width


@given(values, st.integers(1, 80), st.integers(1, 8))
def test_a_curve_always_fills_its_room(points: list[float | None], width: int, height: int) -> None:
    rows = area(points, width, height, nice_top(points))
    assert [len(row) for row in rows] == [width] * height


def test_a_gap_is_not_a_zero_and_the_newest_is_right() -> None:
    assert sparkline([0.0, None, 50.0, 100.0], 5, 100.0) == " ▁ ▄█"


def test_a_curve_stands_on_its_lowest_row() -> None:
    assert area([1.0, 2.0], 2, 2, 2.0) == [" █", "██"]


@given(values)
def test_an_axis_ends_above_every_value_and_not_far_above(points: list[float | None]) -> None:
    top, peak = nice_top(points), max((point for point in points if point is not None), default=0.0)
    assert top >= peak
    assert top <= max(1.0, peak * 2.5)


@pytest.mark.parametrize(
    ("seconds", "text"), [(None, "–"), (0.4, "0 s"), (59, "59 s"), (75, "1m15"), (7380, "2h03"), (200_000, "2d07h")]
)
def test_durations(seconds: float | None, text: str) -> None:
    assert brief(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (12, "12B"), (900 * 2**20, "900M"), (3.5 * 2**30, "3.5G"), (23.5 * 2**30, "24G"), (2**41, "2.0T")],
)
def test_sizes(count: float | None, text: str) -> None:
    assert size(count) == text


@given(st.text(max_size=40), st.integers(1, 40))
def test_clipped_text_fits(text: str, width: int) -> None:
    assert len(clip(text, width)) <= width


@pytest.mark.parametrize("theme", ["ansi_bright_blue", "#6cb6d9", "auto 87%", ""])
def test_every_theme_colour_is_one_that_can_be_drawn(theme: str) -> None:
    palette = palette_of({"primary": theme, "foreground": theme})
    assert isinstance(palette, Palette)
    Style.parse(palette.accent)
    Style.parse(palette.text)
