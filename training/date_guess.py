"""Whether the texts of a column are dates, and of which form."""

from collections.abc import Sequence

import pyarrow as pa

from parvada import texts
from training.candidates import MOST_TOKENS, TOLERATED, TRIED, Candidate, Judge, nearly
from training.forms import dates_that_are

_FORMATS = 6
"""Of dates, tried beside ISO 8601."""


class DateGuess:
    """Counts for each format of dates, ISO 8601 ("") among them, what does not fit it."""

    def __init__(self) -> None:
        self._seen = self._tried = 0
        self._earlier: dict[str, int] = {}
        self.forms: dict[str, Candidate] = {"": Candidate()}

    def update(self, unique: pa.Array, rows: int, judge: Judge) -> None:
        """`unique`: the distinct texts of `rows` rows."""
        self._find_forms(unique)
        for date, candidate in self.forms.items():
            if not candidate.dead:
                judge(candidate, dates_that_are(unique, date))
        self._seen += rows

    def _find_forms(self, unique: pa.Array) -> None:
        """Among the first distinct texts, however many batches they come in."""
        asked = unique[: TRIED - self._tried].to_pylist()
        self._tried += len(asked)
        found = [date for text in asked for date in texts.date_formats(text) if date not in self.forms]
        for date in list(dict.fromkeys(found))[: 1 + _FORMATS - len(self.forms)]:
            self.forms[date] = self._late()

    def _late(self) -> Candidate:
        """Of all that came in earlier batches nothing fits, or its form would be known."""
        made = Candidate()
        made.misses = dict(self._earlier)
        made.dead = len(made.misses) > MOST_TOKENS
        return made

    def remember(self, unique: pa.Array, counts: pa.Array) -> None:
        """What came, for forms that are found later."""
        for text, count in zip(
            unique[: MOST_TOKENS + 1].to_pylist(), counts[: MOST_TOKENS + 1].to_pylist(), strict=True
        ):
            if text in self._earlier or len(self._earlier) <= MOST_TOKENS:
                self._earlier[text] = self._earlier.get(text, 0) + count

    def form(self) -> str | None:
        """The one format that the most values have; None if they are no dates, or may be either way round."""
        best = self.best()
        return best[0] if len(best) == 1 else None

    def nearly(self) -> Candidate | None:
        """What half of the values or more are."""
        return nearly(self.forms.values(), self._seen)

    def best(self) -> Sequence[str]:
        limit = TOLERATED * self._seen
        able = {
            date: candidate.rows
            for date, candidate in self.forms.items()
            if not candidate.dead and candidate.rows <= limit and self._seen
        }
        best = [date for date, rows in able.items() if rows == min(able.values())]
        return [""] if "" in best else best
