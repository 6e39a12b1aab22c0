"""Parvada's own colours; every theme that Textual brings may be chosen instead (ctrl+p)."""

from textual.theme import Theme

DUSK = Theme(
    name="parvada",
    primary="#6cb6d9",
    secondary="#4c8fb0",
    accent="#c9a3e8",
    foreground="#d7dee8",
    background="#10141b",
    surface="#141a23",
    panel="#1d2633",
    success="#7fc98f",
    warning="#e8b76a",
    error="#ec7f7f",
    dark=True,
    variables={
        "border": "#2b3a4d",
        "block-cursor-background": "#223145",
        "block-cursor-foreground": "#e8eef6",
        "block-cursor-text-style": "none",
        "footer-key-foreground": "#c9a3e8",
        "foreground-darken-2": "#7d8b9d",
        "panel-lighten-1": "#2b3a4d",
    },
)
