"""What the texts of a column are: narrows their type and form batch by batch, and says what it had to guess."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from parvada import texts
from parvada.columns import dates_of
from parvada.schema import ColumnType, Note, Reading
from training.distinct import Distinct
from training.forms import (
    BOOLEAN,
    DIGITS,
    STYLES,
    Style,
    dates_that_are,
    fit_64_bits,
    fit_number,
    has_fraction,
    matches,
    unit_of,
    without_unit,
)
from training.notes import NOT_A_VALUE

TOLERATED = 0.05
"""Share of a feature's values that may be no numbers (or dates) where the others are: they count as missing."""
MOST_TOKENS = 5
"""Different ones of them."""
_LONGEST = 40
"""Characters of such a text, and of a value in a note."""
_NO_TOKEN = re.compile(r"[+-]?0\d+|\(.*\d.*\)|.*\d\s*-")
"""Of texts that are no numbers: a zip code or account, and negative numbers of bookkeepers. They miss nothing."""
_SAMPLE = 1_000
"""Distinct texts that tell prose from labels."""
_FORMATS = 6
"""Of dates, tried beside ISO 8601."""
_TRIED = 100
"""Distinct texts among which the first date is looked for."""
EVERYTHING = frozenset({"boolean", "integer", "number", "datetime"})


class ColumnPlan(msgspec.Struct, frozen=True):
    """How a column is read."""

    name: str
    type: ColumnType
    reading: Reading = texts.TEXT


class Guess(msgspec.Struct, frozen=True):
    """A plan, and what had to be guessed for it. `line` of a note is the row, counted from 0. `odd`: the texts of
    which the plan makes missing values because they do not fit, the first one first."""

    plan: ColumnPlan
    notes: tuple[Note, ...] = ()
    odd: tuple[tuple[str, int], ...] = ()


class _Candidate:
    """One form that the values may have, with those that do not."""

    def __init__(self) -> None:
        self.misses: dict[str, int] = {}
        self.dead = False

    @property
    def rows(self) -> int:
        return sum(self.misses.values())

    def add(self, odd: pa.Array, counts: pa.Array) -> None:
        """`odd`: distinct texts that do not fit, and how often each comes."""
        for text, count in zip(odd[:_TRIED].to_pylist(), counts[:_TRIED].to_pylist(), strict=True):
            self.misses[text] = self.misses.get(text, 0) + count
            if len(self.misses) > MOST_TOKENS or len(text) > _LONGEST or _NO_TOKEN.fullmatch(text):
                self.dead = True
                return


class TypeGuess:
    """Of one column of texts. `kinds`: the types that it may have beside category and text."""

    def __init__(
        self,
        name: str,
        columns: int,
        kinds: frozenset[str] = EVERYTHING,
        reading: Reading = texts.TEXT,
        *,
        told_missing: bool = False,
        quoted: bool = False,
    ) -> None:
        """`told_missing`: the uploader said what stands for a missing value; nothing of it is guessed. `quoted`: what
        stood for one without quotes has gone, so that no text is one."""
        self.name = name
        self._kinds = kinds
        self.reading = reading
        self._told_missing = told_missing
        self._quoted = quoted
        self._rows = 0
        self._seen = 0
        self._sample = Distinct(columns, _SAMPLE)
        self._tokens: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self._unit: str | None = None
        self._too_long = ""
        self._whole = {"boolean": _Candidate(), "integer": _Candidate(), "digits": _Candidate()}
        self._styles = {style: _Candidate() for style in STYLES}
        self._fractions: set[Style] = set()
        self._groups: dict[Style, set[int]] = {style: set() for style in STYLES if style[1] in (" ", ".")}
        self._dates: dict[str, _Candidate] = {"": _Candidate()}

    # ------------------------------------------------------------ first pass
    def update(self, values: pa.Array) -> None:
        """`values`: texts as the reading trims them; null where the file has nothing at all."""
        counted = pc.value_counts(values.drop_null())
        unique, counts = counted.field("values"), counted.field("counts")
        tokens = {""} if self._quoted else texts.missing_of(self.reading)
        missing = pc.is_in(unique, value_set=pa.array(sorted(tokens), pa.string()))
        for token, count in zip(unique.filter(missing).to_pylist(), counts.filter(missing).to_pylist(), strict=True):
            if token:
                self._tokens[token] = self._tokens.get(token, 0) + count
                self._note_place(token, values)
        present = pc.invert(missing)
        unique, counts = unique.filter(present), counts.filter(present)
        if len(unique):
            self._seen += pc.sum(counts).as_py()
            if self._quoted and not self._told_missing and pc.any(pc.is_in(unique, value_set=_usual_missing())).as_py():
                self.reading = msgspec.structs.replace(self.reading, missing=())
            self._sample.update(unique)
            self._narrow(unique, counts, partial(self._note_places, values=values))
        self._rows += len(values)

    def _narrow(self, unique: pa.Array, counts: pa.Array, note: Callable[[_Candidate], None]) -> None:
        def judge(candidate: _Candidate, fits: pa.Array) -> None:
            odd = pc.invert(fits)
            candidate.add(unique.filter(odd), counts.filter(odd))
            note(candidate)

        if "boolean" in self._kinds and not self._whole["boolean"].dead:
            judge(self._whole["boolean"], pc.match_substring_regex(unique, BOOLEAN))
        if {"integer", "number"} & self._kinds:
            self._narrow_numbers(unique, judge)
        if "datetime" in self._kinds:
            self._narrow_dates(unique, judge)

    def _narrow_numbers(self, unique: pa.Array, judge: Callable[[_Candidate, pa.Array], None]) -> None:
        if self._unit is None:
            self._unit = next(filter(None, map(unit_of, unique[:_TRIED].to_pylist())), "")
        plain, carries = without_unit(unique, self._unit)
        if not self._whole["digits"].dead:
            digits = pc.match_substring_regex(plain, DIGITS)
            judge(self._whole["digits"], digits)
            judge(self._whole["integer"], pc.and_(digits, fit_64_bits(plain, digits)))
        for decimal in ".,":
            styles = [style for style in STYLES if style[0] == decimal and not self._styles[style].dead]
            if not styles:
                continue
            simple = pc.and_(carries, matches(plain, (decimal, "")))
            for style in styles:
                fits = simple
                if style[1] and not pc.all(simple).as_py():
                    fits = pc.and_(carries, matches(plain, style))
                judge(self._styles[style], fits)
                if style in self._groups and len(self._groups[style]) < 2:
                    marks = pc.count_substring_regex(plain.filter(fits), texts.GROUPINGS[style[1]])
                    self._groups[style] |= set(pc.unique(marks).to_pylist())
                if style not in self._fractions and has_fraction(plain, fits, decimal):
                    self._fractions.add(style)

    def _narrow_dates(self, unique: pa.Array, judge: Callable[[_Candidate, pa.Array], None]) -> None:
        first = self._seen <= pc.count(unique).as_py() or len(self._dates) == 1
        if first and not any(not candidate.misses for candidate in self._dates.values() if self._rows):
            found = [date for text in unique[:_TRIED].to_pylist() for date in texts.date_formats(text)]
            # Those before the first date, in earlier batches, are few or the column is none of dates.
            new = [date for date in dict.fromkeys(found) if date not in self._dates]
            self._dates |= {date: self._late() for date in new[:_FORMATS]}
        for date, candidate in self._dates.items():
            if not candidate.dead:
                judge(candidate, dates_that_are(unique, date))

    def _late(self) -> _Candidate:
        made = _Candidate()
        made.misses = dict(self._dates[""].misses)
        made.dead = self._dates[""].dead
        return made

    def _note_places(self, candidate: _Candidate, values: pa.Array) -> None:
        for text in candidate.misses:
            self._note_place(text, values)

    def _note_place(self, text: str, values: pa.Array) -> None:
        if text not in self._places:
            at = pc.index(values, text).as_py()
            if at >= 0:
                self._places[text] = self._rows + at

    # ------------------------------------------------------------ what the file says
    def decimals(self) -> Mapping[str, tuple[str, int]]:
        """The decimal mark that this column proves, with a text and its row that show it; empty if it may have either,
        or holds no numbers."""
        best = self._best_styles()
        marks = {style[0] for style in STYLES if best and self._able(style)}
        if len(marks) != 1 or self._digits_only():
            return {}
        (mark,) = marks
        others = [candidate for (decimal, _), candidate in self._styles.items() if decimal != mark]
        fitting = self._styles[best[0]].misses
        shown = [text for candidate in others for text in candidate.misses if text not in fitting]
        return {mark: (shown[0], self._places.get(shown[0], 0))} if shown else {}

    def _digits_only(self) -> bool:
        digits = self._whole["digits"]
        return not digits.dead and digits.rows == min(candidate.rows for candidate in self._styles.values())

    def _best_styles(self) -> Sequence[Style]:
        """Those that the most values have, if these are numbers at all."""
        if not {"integer", "number"} & self._kinds:
            return []
        able = {style: candidate.rows for style, candidate in self._styles.items() if self._able(style)}
        return [style for style, rows in able.items() if rows == min(able.values())]

    def _able(self, style: Style) -> bool:
        return self._tolerable(self._styles[style]) and self._are_quantities(style)

    def _are_quantities(self, style: Style) -> bool:
        """Groups of three digits, as many of them in each value: a telephone, an address of a network."""
        groups = self._groups.get(style, set())
        return style in self._fractions or len(groups) != 1 or max(groups) < 2

    def _tolerable(self, candidate: _Candidate) -> bool:
        if candidate.dead or not self._seen:
            return False
        # A sign that not all numbers carry belongs to none.
        if self._unit and any(texts.is_number(text) for text in candidate.misses):
            return False
        return candidate.rows <= TOLERATED * self._seen

    # ------------------------------------------------------------ the plan
    def plan(self, order: Sequence[Style], wanted: ColumnType | None = None, date: str = "") -> Guess:
        """`order`: the styles of numbers that this file may have, the likelier ones first. `wanted`, `date`: what the
        uploader says; what does not fit is then found by `profile.misfits`."""
        if wanted is not None:
            return Guess(self._wanted(wanted, order, date), self._token_notes())
        if not self._seen:
            return Guess(ColumnPlan(self.name, "number", self.reading), self._token_notes())
        found = self._typed(order)
        if found is None:
            return Guess(self._labels(), (*self._token_notes(), *self._label_notes(order)))
        plan, candidate = found
        odd = tuple((text, self._places.get(text, 0)) for text in candidate.misses)
        if candidate.misses:
            missing = (*sorted(texts.missing_of(self.reading)), *candidate.misses)
            plan = msgspec.structs.replace(plan, reading=msgspec.structs.replace(plan.reading, missing=missing))
        return Guess(plan, (*self._token_notes(), *self._form_notes(plan, candidate)), odd)

    def _wanted(self, wanted: ColumnType, order: Sequence[Style], date: str) -> ColumnPlan:
        reading = self.reading
        if wanted in ("integer", "number"):
            reading = self._number_reading(order)
        elif wanted == "datetime":
            reading = msgspec.structs.replace(reading, trim=True, date=date or self._date_of_column() or "")
        elif wanted == "category":
            reading = msgspec.structs.replace(reading, mixed=True)
        return ColumnPlan(self.name, wanted, reading)

    def _typed(self, order: Sequence[Style]) -> tuple[ColumnPlan, _Candidate] | None:
        if "boolean" in self._kinds and not self._whole["boolean"].dead and not self._whole["boolean"].misses:
            return ColumnPlan(self.name, "boolean", self.reading), self._whole["boolean"]
        number, when = self._number(order), self._date()
        if number is None or when is None:
            return number or when
        return number if number[1].rows <= when[1].rows else when

    def _number(self, order: Sequence[Style]) -> tuple[ColumnPlan, _Candidate] | None:
        reading = self._number_reading(order)
        candidate = self._styles[reading.decimal, reading.grouping]
        if "number" not in self._kinds or not self._able((reading.decimal, reading.grouping)):
            return None
        digits, integer = self._whole["digits"], self._whole["integer"]
        if not reading.unit and not digits.dead and digits.rows == candidate.rows:
            if integer.rows == digits.rows and not integer.dead:
                return ColumnPlan(self.name, "integer", reading), integer
            return None  # as floats, two of them might become one
        whole = (reading.decimal, reading.grouping) not in self._fractions and (reading.grouping or reading.unit)
        if whole and not self._fits_64_bits(reading):
            self._too_long = max(self._sample.values(), key=len)
            return None
        return ColumnPlan(self.name, "integer" if whole else "number", reading), candidate

    def _fits_64_bits(self, reading: Reading) -> bool:
        sample = pa.array([text for text in self._sample.values() if text not in self._odd(reading)], pa.string())
        return bool(pc.all(fit_number(sample, reading, whole=True), min_count=0).as_py())

    def _odd(self, reading: Reading) -> Mapping[str, int]:
        return self._styles[reading.decimal, reading.grouping].misses

    def _beyond_64_bits(self) -> str:
        """An integer that does not fit, in a column of integers; empty if there is none."""
        digits, integer = self._whole["digits"], self._whole["integer"]
        if self._too_long:
            return self._too_long
        if not {"integer", "number"} & self._kinds or self._unit or not self._tolerable(digits):
            return ""
        return next((text for text in integer.misses if text not in digits.misses), "")

    def _nearly_a_number(self) -> _Candidate | None:
        """The style that most values have, if these are at least half of them."""
        if not {"integer", "number"} & self._kinds:
            return None
        able = [candidate for candidate in self._styles.values() if not candidate.dead and candidate.misses]
        best = min(able, key=lambda candidate: candidate.rows, default=None)
        return best if best is not None and best.rows * 2 <= self._seen else None

    def _number_reading(self, order: Sequence[Style]) -> Reading:
        best = self._best_styles()
        if not best:
            best = [style for style in order if self._able(style)]
        elif not set(best) & set(order):  # the file has another decimal mark: what does not fit it is missing
            best = sorted(
                filter(self._able, order),
                key=lambda style: self._styles[style].rows,
            )[:1]
        if best and self._digits_only() and len({decimal for decimal, _ in order}) > 1:
            best = [STYLES[0]]
        decimal, grouping = next((style for style in order if style in best), order[0])
        return msgspec.structs.replace(
            self.reading, trim=True, decimal=decimal, grouping=grouping, unit=self._unit or ""
        )

    def _date(self) -> tuple[ColumnPlan, _Candidate] | None:
        date = self._date_of_column()
        if date is None:
            return None
        reading = msgspec.structs.replace(self.reading, trim=True, date=date)
        return ColumnPlan(self.name, "datetime", reading), self._dates[date]

    def _date_of_column(self) -> str | None:
        """The one format that the most values have; None if they are no dates, or may be either way round."""
        best = self._best_dates()
        return best[0] if len(best) == 1 else None

    def _best_dates(self) -> Sequence[str]:
        if "datetime" not in self._kinds:
            return []
        limit = TOLERATED * self._seen
        able = {
            date: candidate.rows
            for date, candidate in self._dates.items()
            if not candidate.dead and candidate.rows <= limit and self._seen
        }
        best = [date for date, rows in able.items() if rows == min(able.values())]
        return [""] if "" in best else best

    def labels(self) -> Guess:
        """The plan of a category, whatever the texts look like."""
        return Guess(ColumnPlan(self.name, "category", self.reading), self._token_notes())

    def _labels(self) -> ColumnPlan:
        if self._beyond_64_bits():
            return ColumnPlan(self.name, "category", msgspec.structs.replace(self.reading, mixed=True))
        return ColumnPlan(self.name, "text" if self._is_prose() else "category", self.reading)

    def _is_prose(self) -> bool:
        """Mostly different, and long: free text, not a label."""
        values = self._sample.values()
        count = len(values)
        length = sum(map(len, values)) / count
        words = sum(len(value.split()) for value in values) / count
        return (length >= 50 or words >= 4) and (count > 50 or count > self._seen / 2)

    # ------------------------------------------------------------ notes
    def _note(self, code: str, message: str, value: str | None = None, count: int | None = None) -> Note:
        row = self._places.get(value) if value is not None else None
        told = f"column {self.name!r}: {message}"
        shown = None if value is None else _cut(value)
        return Note(code=code, message=told, column=self.name, line=row, value=shown, count=count)

    def _token_notes(self) -> tuple[Note, ...]:
        if not self._tokens or self._told_missing:
            return ()
        first = min(self._tokens, key=lambda token: self._places.get(token, 0))
        count = sum(self._tokens.values())
        shown = ", ".join(map(repr, sorted(self._tokens)))
        return (self._note("missing_tokens", f"{shown} taken as missing, {_times(count)}", first, count),)

    def _form_notes(self, plan: ColumnPlan, candidate: _Candidate) -> Iterator[Note]:
        if candidate.misses:
            kind = "dates" if plan.type == "datetime" else "numbers"
            shown = ", ".join(map(repr, candidate.misses))
            first = next(iter(candidate.misses))
            message = f"{shown} taken as missing, {_times(candidate.rows)}: the other values are {kind}"
            yield self._note(NOT_A_VALUE, message, first, candidate.rows)
        if plan.reading.grouping:
            mark = plan.reading.grouping
            if value := self._shown(mark, plan.reading):
                number = f"{texts.number_of(value, plan.reading):.15g}"
                yield self._note("grouped_digits", f"{value!r} is read as {number}: {mark!r} groups digits", value)
        if plan.reading.unit:
            yield self._note("unit", f"numbers are read without the {plan.reading.unit!r} that all of them carry")
        if plan.reading.date:
            value = next((text for text in self._sample.values() if text not in candidate.misses), "")
            day = dates_of([value], plan.reading.date)[0]
            message = f"dates are read as {plan.reading.date}: {value!r} is {day:%Y-%m-%d}"
            yield self._note("date_format", message, value)

    def _shown(self, mark: str, reading: Reading) -> str:
        """A value with its digits grouped."""
        grouped = re.compile(rf"\d{texts.GROUPINGS[mark]}\d")
        fitting = (text for text in self._sample.values() if text not in (reading.missing or ()))
        return next((text for text in fitting if grouped.search(texts.without_unit(text, reading.unit))), "")

    def _label_notes(self, order: Sequence[Style]) -> Iterator[Note]:
        styles = self._best_styles()
        if styles and not set(styles) & set(order):
            shown, mark = next(iter(self._sample.values())), order[0][0]
            message = f"numbers as {_cut(shown)!r} have another decimal mark than {mark!r}: kept as labels"
            yield self._note("kept_as_labels", message, shown)
            return
        if longest := self._beyond_64_bits():
            message = f"integers of more than 64 bits, as {longest}, are kept as labels"
            yield self._note("long_integers", message, longest)
        elif (number := self._nearly_a_number()) is not None:
            first, rows = next(iter(number.misses)), number.rows
            message = (
                f"{_cut(first)!r} is no number, {_times(rows)} with its like: kept as labels; "
                f"say types={self.name}:number and missing={_cut(first)} if it stands for a missing one"
            )
            yield self._note("kept_as_labels", message, first, rows)
        if self._quoted and all(texts.is_number(text) for text in self._sample.values()):
            yield self._note("quoted_numbers", f"numbers in quotes are texts; say types={self.name}:number if not")
        if len(best := self._best_dates()) > 1:
            form = re.compile(texts.date_form(best[0]))
            fitting = (text for text in self._sample.values() if form.fullmatch(texts.named_month(text)))
            shown = next(fitting, "")
            either = " or ".join(best)
            message = f"dates as {shown!r} may be {either}: kept as labels; say types={self.name}:datetime[{best[0]}]"
            yield self._note("date_order", message, shown)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _usual_missing() -> pa.Array:
    return pa.array(sorted(texts.MISSING), pa.string())


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
