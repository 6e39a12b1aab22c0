"""Whether the texts of a column are numbers, and of which form."""

from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from parvada import texts
from parvada.schema import ColumnType, Reading
from training.candidates import MOST_TOKENS, TOLERATED, TRIED, Candidate, Judge, nearly
from training.distinct import Distinct
from training.forms import DIGITS, STYLES, Style, fit_64_bits, fit_number, has_fraction, matches, unit_of, without_unit


class NumberGuess:
    """Counts for each style of numbers what does not fit it."""

    def __init__(self, sample: Distinct) -> None:
        """`sample`: texts of the column, filled by the caller."""
        self._sample = sample
        self._seen = 0
        self.unit = ""
        self._bare = Candidate()
        """What it misses are numbers: those that came before the first sign of percent or currency."""
        self._too_long = ""
        self._whole = {"integer": Candidate(), "digits": Candidate()}
        self.styles = {style: Candidate() for style in STYLES}
        self._fractions: set[Style] = set()
        self._groups: dict[Style, set[int]] = {style: set() for style in STYLES if style[1] in (" ", ".")}

    def update(self, unique: pa.Array, rows: int, judge: Judge) -> None:
        """`unique`: the distinct texts of `rows` rows."""
        self._seen += rows
        if not self.unit:
            self.unit = next(filter(None, map(unit_of, unique[:TRIED].to_pylist())), "")
            if self.unit:
                self._without_it()
        plain, carries = without_unit(unique, self.unit)
        if not self.unit and not self._bare.dead:
            judge(self._bare, pc.invert(pc.or_(matches(plain, (".", "")), matches(plain, (",", "")))))
        if not self._whole["digits"].dead:
            digits = pc.match_substring_regex(plain, DIGITS)
            judge(self._whole["digits"], digits)
            judge(self._whole["integer"], pc.and_(digits, fit_64_bits(plain, digits)))
        for decimal in ".,":
            styles = [style for style in STYLES if style[0] == decimal and not self.styles[style].dead]
            if not styles:
                continue
            simple = pc.and_(carries, matches(plain, (decimal, "")))
            for style in styles:
                fits = simple
                if style[1] and not pc.all(simple).as_py():
                    fits = pc.and_(carries, matches(plain, style))
                judge(self.styles[style], fits)
                if style in self._groups and len(self._groups[style]) < 2:
                    marks = pc.count_substring_regex(plain.filter(fits), texts.GROUPINGS[style[1]])
                    self._groups[style] |= set(pc.unique(marks).to_pylist())
                if style not in self._fractions and has_fraction(plain, fits, decimal):
                    self._fractions.add(style)

    def decimal(self) -> tuple[str, str] | None:
        """The decimal mark that these numbers prove, and a text that shows it; None if they may have either."""
        best = self.best()
        marks = {style[0] for style in STYLES if best and self.able(style)}
        if len(marks) != 1 or self.digits_only():
            return None
        (mark,) = marks
        others = [candidate for (decimal, _), candidate in self.styles.items() if decimal != mark]
        fitting = self.styles[best[0]].misses
        shown = [text for candidate in others for text in candidate.misses if text not in fitting]
        return (mark, shown[0]) if shown else None

    def other_way(self, reading: Reading, order: Sequence[Style]) -> float | None:
        """What a text with the reading's decimal mark would be if the mark grouped digits; None if it cannot."""
        text = self.marked(reading)
        other = next((style for style in self.best() if style in order and style[1] == reading.decimal), None)
        # Only who separates cells by semicolons writes a decimal comma unasked: elsewhere a point is one.
        if reading.grouping or not text or other is None or order[0][0] == ".":
            return None
        return texts.number_of(text, msgspec.structs.replace(reading, decimal=other[0], grouping=other[1]))

    def grouped(self, reading: Reading) -> str:
        """A text with its digits grouped: one that is no number without that."""
        misses = self.styles[reading.decimal, reading.grouping].misses
        return next(text for text in self.styles[reading.decimal, ""].misses if text not in misses)

    def marked(self, reading: Reading) -> str:
        """A text with the decimal mark."""
        misses = self.styles[reading.decimal, reading.grouping].misses
        return next((t for t in self._sample.values() if reading.decimal in t and t not in misses), "")

    def _without_it(self) -> None:
        """The numbers of earlier batches carried no sign, and so do not fit."""
        for candidate in (*self.styles.values(), *self._whole.values()):
            candidate.misses |= self._bare.misses
            candidate.dead = candidate.dead or self._bare.dead or len(candidate.misses) > MOST_TOKENS

    def digits_only(self) -> bool:
        digits = self._whole["digits"]
        return not digits.dead and digits.rows == min(candidate.rows for candidate in self.styles.values())

    def best(self) -> Sequence[Style]:
        """Those that the most values have, if these are numbers at all."""
        able = {style: candidate.rows for style, candidate in self.styles.items() if self.able(style)}
        return [style for style, rows in able.items() if rows == min(able.values())]

    def able(self, style: Style) -> bool:
        return self._tolerable(self.styles[style]) and self._are_quantities(style)

    def _are_quantities(self, style: Style) -> bool:
        """Groups of three digits, as many of them in each value: a telephone, an address of a network."""
        groups = self._groups.get(style, set())
        return style in self._fractions or len(groups) != 1 or max(groups) < 2

    def _tolerable(self, candidate: Candidate) -> bool:
        if candidate.dead or not self._seen:
            return False
        # A sign that not all numbers carry belongs to none.
        if self.unit and any(texts.is_number(text) for text in candidate.misses):
            return False
        return candidate.rows <= TOLERATED * self._seen

    def found(self, order: Sequence[Style], base: Reading) -> tuple[ColumnType, Reading, Candidate] | None:
        """Type, reading and candidate of the numbers that the values are; None if they are none."""
        reading = self.reading(order, base)
        candidate = self.styles[reading.decimal, reading.grouping]
        if not self.able((reading.decimal, reading.grouping)):
            return None
        digits, integer = self._whole["digits"], self._whole["integer"]
        if not reading.unit and not digits.dead and digits.rows == candidate.rows:
            if integer.rows == digits.rows and not integer.dead:
                return "integer", reading, integer
            return None  # as floats, two of them might become one
        whole = (reading.decimal, reading.grouping) not in self._fractions and (reading.grouping or reading.unit)
        if whole and not self._fits_64_bits(reading):
            self._too_long = max(self._sample.values(), key=len)
            return None
        return "integer" if whole else "number", reading, candidate

    def _fits_64_bits(self, reading: Reading) -> bool:
        sample = pa.array([text for text in self._sample.values() if text not in self._odd(reading)], pa.string())
        return bool(pc.all(fit_number(sample, reading, whole=True), min_count=0).as_py())

    def _odd(self, reading: Reading) -> Mapping[str, int]:
        return self.styles[reading.decimal, reading.grouping].misses

    def beyond_64_bits(self) -> str:
        """An integer that does not fit, in a column of integers; empty if there is none."""
        digits, integer = self._whole["digits"], self._whole["integer"]
        if self._too_long:
            return self._too_long
        if self.unit or not self._tolerable(digits):
            return ""
        return next((text for text in integer.misses if text not in digits.misses), "")

    def nearly(self) -> Candidate | None:
        """What half of the values or more are."""
        return nearly(self.styles.values(), self._seen)

    def reading(self, order: Sequence[Style], base: Reading) -> Reading:
        """`base` with the style of the numbers."""
        best = self.best()
        if not best:
            best = [style for style in order if self.able(style)]
        elif not set(best) & set(order):  # the file has another decimal mark: what does not fit it is missing
            best = sorted(
                filter(self.able, order),
                key=lambda style: self.styles[style].rows,
            )[:1]
        if best and self.digits_only() and len({decimal for decimal, _ in order}) > 1:
            best = [STYLES[0]]
        decimal, grouping = next((style for style in order if style in best), order[0])
        return msgspec.structs.replace(base, trim=True, decimal=decimal, grouping=grouping, unit=self.unit)
