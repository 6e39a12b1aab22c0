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
from training.candidates import LONGEST, TRIED, Candidate
from training.date_guess import DateGuess
from training.distinct import Distinct
from training.forms import BOOLEAN, Style
from training.notes import NOT_A_VALUE
from training.number_guess import NumberGuess

_SAMPLE = 1_000
"""Distinct texts that tell prose from labels."""
_BARE = "NA or its like"
"""Of texts that the reader has made nulls already."""
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
        bare: bool = False,
    ) -> None:
        """`told_missing`: the uploader said what stands for a missing value; nothing of it is guessed. `quoted`: what
        stood for one without quotes is null, so that no text is one. `bare`: it is null in this column too, which has
        no quotes."""
        self.name = name
        self._kinds = kinds
        self.reading = reading
        self._told_missing = told_missing
        self._quoted = quoted
        self._bare = bare
        self._rows = 0
        self._seen = 0
        self._sample = Distinct(columns, _SAMPLE)
        self._tokens: dict[str, int] = {}
        self._places: dict[str, int] = {}
        self._boolean = Candidate()
        self.numbers = NumberGuess(self._sample)
        self._dates = DateGuess()

    # ------------------------------------------------------------ first pass
    def update(self, values: pa.Array) -> None:
        """`values`: texts as the reading trims them; null where the file has nothing at all."""
        if self._bare and values.null_count:
            self._tokens[_BARE] = self._tokens.get(_BARE, 0) + values.null_count
            self._places.setdefault(_BARE, self._rows + pc.index(pc.is_null(values), True).as_py())
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

    def _narrow(self, unique: pa.Array, counts: pa.Array, note: Callable[[Candidate], None]) -> None:
        def judge(candidate: Candidate, fits: pa.Array) -> None:
            odd = pc.invert(fits)
            candidate.add(unique.filter(odd), counts.filter(odd))
            note(candidate)

        if "boolean" in self._kinds and not self._boolean.dead:
            judge(self._boolean, pc.match_substring_regex(unique, BOOLEAN))
        if {"integer", "number"} & self._kinds:
            self.numbers.update(unique, pc.sum(counts).as_py(), judge)
        if "datetime" in self._kinds:
            self._dates.update(unique, pc.sum(counts).as_py(), judge)
            self._dates.remember(unique, counts)

    def _note_places(self, candidate: Candidate, values: pa.Array) -> None:
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
        found = self.numbers.decimal()
        if found is None:
            return {}
        mark, text = found
        return {mark: (text, self._places.get(text, 0))}

    # ------------------------------------------------------------ the plan
    def plan(self, order: Sequence[Style], wanted: ColumnType | None = None, date: str = "") -> Guess:
        """`order`: the styles of numbers that this file may have, the likelier ones first. `wanted`, `date`: what the
        uploader says; what does not fit is then found by `profile.misfits`."""
        if wanted is not None:
            plan = self._wanted(wanted, order, date)
            told = bool(date) or wanted not in ("integer", "number", "datetime") or not self._seen
            return Guess(plan, (*self._token_notes(), *([] if told else self._form_notes(plan, Candidate(), order))))
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
        return Guess(plan, (*self._token_notes(), *self._form_notes(plan, candidate, order)), odd)

    def _wanted(self, wanted: ColumnType, order: Sequence[Style], date: str) -> ColumnPlan:
        reading = self.reading
        if wanted in ("integer", "number"):
            reading = self.numbers.reading(order, self.reading)
        elif wanted == "datetime":
            reading = msgspec.structs.replace(reading, trim=True, date=date or self._dates.form() or "")
        elif wanted == "category":
            reading = msgspec.structs.replace(reading, mixed=True)
        return ColumnPlan(self.name, wanted, reading)

    def _typed(self, order: Sequence[Style]) -> tuple[ColumnPlan, Candidate] | None:
        if "boolean" in self._kinds and not self._boolean.dead and not self._boolean.misses:
            return ColumnPlan(self.name, "boolean", self.reading), self._boolean
        number, when = self.numbers.found(order, self.reading), self._dates.form()
        if when is not None and (number is None or self._dates.forms[when].rows < number[2].rows):
            reading = msgspec.structs.replace(self.reading, trim=True, date=when)
            return ColumnPlan(self.name, "datetime", reading), self._dates.forms[when]
        return None if number is None else (ColumnPlan(self.name, number[0], number[1]), number[2])

    def labels(self) -> Guess:
        """The plan of a category, whatever the texts look like."""
        return Guess(ColumnPlan(self.name, "category", self.reading), self._token_notes())

    def _labels(self) -> ColumnPlan:
        if self.numbers.beyond_64_bits():
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

    def _form_notes(self, plan: ColumnPlan, candidate: Candidate, order: Sequence[Style]) -> Iterator[Note]:
        if candidate.misses:
            kind = "dates" if plan.type == "datetime" else "numbers"
            shown = ", ".join(map(repr, candidate.misses))
            first = next(iter(candidate.misses))
            message = f"{shown} taken as missing, {_times(candidate.rows)}: the other values are {kind}"
            yield self._note(NOT_A_VALUE, message, first, candidate.rows)
        if plan.reading.grouping:
            mark, value = plan.reading.grouping, self.numbers.grouped(plan.reading)
            number = f"{texts.number_of(value, plan.reading):.15g}"
            yield self._note("grouped_digits", f"{value!r} is read as {number}: {mark!r} groups digits", value)
        if plan.type == "number" and (other := self.numbers.other_way(plan.reading, order)) is not None:
            value = self.numbers.marked(plan.reading)
            number = f"{texts.number_of(value, plan.reading):.15g}"
            message = f"{value!r} is read as {number}; it may be {other:.15g}: say decimal="
            yield self._note("decimal_guessed", message, value)
        if plan.reading.unit:
            yield self._note("unit", f"numbers are read without the {plan.reading.unit!r} that all of them carry")
        if plan.reading.date:
            value = next((text for text in self._sample.values() if text not in candidate.misses), "")
            day = dates_of([value], plan.reading.date)[0]
            message = f"dates are read as {plan.reading.date}: {value!r} is {day:%Y-%m-%d}"
            yield self._note("date_format", message, value)

    def _label_notes(self, order: Sequence[Style]) -> Iterator[Note]:
        styles = self.numbers.best()
        if styles and not set(styles) & set(order):
            shown, mark = next(iter(self._sample.values())), order[0][0]
            message = f"numbers as {_cut(shown)!r} have another decimal mark than {mark!r}: kept as labels"
            yield self._note("kept_as_labels", message, shown)
            return
        if longest := self.numbers.beyond_64_bits():
            message = f"integers of more than 64 bits, as {longest}, are kept as labels"
            yield self._note("long_integers", message, longest)
        elif (odd := self.numbers.nearly()) is not None:
            yield self._kept_as_labels("number", next(iter(odd.misses)), odd.rows)
        elif len(self._dates.best()) < 2 and (odd := self._dates.nearly()) is not None:
            yield self._kept_as_labels("date", next(iter(odd.misses)), odd.rows)
        elif first := self._first_among_numbers():
            yield self._kept_as_labels("number", first, None)
        if self._quoted and all(texts.is_number(text) for text in self._sample.values()):
            yield self._note("quoted_numbers", f"numbers in quotes are texts; say types={self.name}:number if not")
        if len(best := self._dates.best()) > 1:
            form = re.compile(texts.date_form(best[0]))
            fitting = (text for text in self._sample.values() if form.fullmatch(texts.named_month(text)))
            shown = next(fitting, "")
            either = " or ".join(best)
            message = f"dates as {shown!r} may be {either}: kept as labels; say types={self.name}:datetime[{best[0]}]"
            yield self._note("date_order", message, shown)

    def _kept_as_labels(self, what: str, first: str, rows: int | None) -> Note:
        kind = "datetime" if what == "date" else what
        how_often = f", {_times(rows)} with its like" if rows else ", as others are not"
        message = (
            f"{_cut(first)!r} is no {what}{how_often}: kept as labels; "
            f"say types={self.name}:{kind} and missing={_cut(first)} if it stands for a missing one"
        )
        return self._note("kept_as_labels", message, first, rows)

    def _first_among_numbers(self) -> str:
        """The first text that is no number, where half or more of the first different ones are; else empty."""
        if not {"integer", "number"} & self._kinds:
            return ""
        first = self._sample.values()[:TRIED]
        odd = [text for text in first if not texts.is_number(text)]
        return odd[0] if odd and len(odd) * 2 <= len(first) else ""


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"


def _usual_missing() -> pa.Array:
    return pa.array(sorted(texts.MISSING), pa.string())


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
