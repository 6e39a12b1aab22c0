"""Whether the texts of a column are dates, and of which form."""

from collections.abc import Sequence

import pyarrow as pa

from parvada import texts
from training.candidates import TOLERATED, TRIED, Candidate, Judge
from training.forms import dates_that_are

_FORMATS = 6
"""Of dates, tried beside ISO 8601."""


class DateGuess:
    """Counts for each format of dates, ISO 8601 ("") among them, what does not fit it."""

    def __init__(self) -> None:
        self._seen = 0
        self.forms: dict[str, Candidate] = {"": Candidate()}

    def update(self, unique: pa.Array, rows: int, judge: Judge) -> None:
        """`unique`: the distinct texts of `rows` rows."""
        if len(self.forms) == 1 and (self.forms[""].misses or not self._seen):
            found = [date for text in unique[:TRIED].to_pylist() for date in texts.date_formats(text)]
            # Those before the first date, in earlier batches, are few or the column is none of dates.
            new = [date for date in dict.fromkeys(found) if date not in self.forms]
            self.forms |= {date: self._late() for date in new[:_FORMATS]}
        for date, candidate in self.forms.items():
            if not candidate.dead:
                judge(candidate, dates_that_are(unique, date))
        self._seen += rows

    def _late(self) -> Candidate:
        made = Candidate()
        made.misses = dict(self.forms[""].misses)
        made.dead = self.forms[""].dead
        return made

    def form(self) -> str | None:
        """The one format that the most values have; None if they are no dates, or may be either way round."""
        best = self.best()
        return best[0] if len(best) == 1 else None

    def best(self) -> Sequence[str]:
        limit = TOLERATED * self._seen
        able = {
            date: candidate.rows
            for date, candidate in self.forms.items()
            if not candidate.dead and candidate.rows <= limit and self._seen
        }
        best = [date for date, rows in able.items() if rows == min(able.values())]
        return [""] if "" in best else best
