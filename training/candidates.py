"""Forms that the texts of a column may have, each with what does not fit it."""

import re
from collections.abc import Callable, Iterable

import pyarrow as pa

TOLERATED = 0.05
"""Share of a feature's values that may be no numbers (or dates) where the others are: they count as missing."""
MOST_TOKENS = 5
"""Different ones of them."""
LONGEST = 40
"""Characters of such a text, and of a value in a note."""
TRIED = 100
"""Distinct texts among which the first date or sign is looked for."""
_NO_TOKEN = re.compile(r"[+-]?0\d+|\(.*\d.*\)|.*\d\s*-")
"""Of texts that are no numbers: a zip code or account, and negative numbers of bookkeepers. They miss nothing."""


class Candidate:
    """One form that the values may have, with those that do not."""

    def __init__(self) -> None:
        self.misses: dict[str, int] = {}
        self.dead = False

    @property
    def rows(self) -> int:
        return sum(self.misses.values())

    def add(self, odd: pa.Array, counts: pa.Array) -> None:
        """`odd`: distinct texts that do not fit, and how often each comes."""
        for text, count in zip(odd[:TRIED].to_pylist(), counts[:TRIED].to_pylist(), strict=True):
            self.misses[text] = self.misses.get(text, 0) + count
            if len(self.misses) > MOST_TOKENS or len(text) > LONGEST or _NO_TOKEN.fullmatch(text):
                self.dead = True
                return


def nearly(candidates: Iterable[Candidate], seen: int) -> Candidate | None:
    """Of those with misses, the one that the most of `seen` values fit, if these are at least half."""
    able = [candidate for candidate in candidates if candidate.misses and not candidate.dead]
    best = min(able, key=lambda candidate: candidate.rows, default=None)
    return best if best is not None and best.rows * 2 <= seen else None


Judge = Callable[[Candidate, pa.Array], None]
"""Given which of the present texts fit, adds those that do not."""
