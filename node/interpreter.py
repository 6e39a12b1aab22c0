"""The interpreter's own settings, for every process in which a log runs; see also `parvada._startup`."""

import gc
import sys

SWITCH_SECONDS = 0.001
"""How long the log's thread may wait for the interpreter while the main loop is busy; 5 ms by default."""
YOUNG_OBJECTS = 20_000
"""New objects between two searches for cycles; 700 by default. The state is made of values that hold no cycles, so a
search finds nothing, but every entry makes enough of them to cost a third of the time that applying it takes."""


def tune() -> None:
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(YOUNG_OBJECTS)
