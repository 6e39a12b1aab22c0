"""The first pass over an upload: what its columns are."""

from collections.abc import Mapping, Sequence

import msgspec
import pyarrow as pa

from parvada.names import ColumnNames
from parvada.schema import Note
from parvada.texts import TYPED_VALUE
from training import profile
from training.asked_types import AskedType, of_arrow, parse_types
from training.errors import BadData, BadRequest
from training.forms import STYLES, Style
from training.guess import ColumnPlan, Guess, TypeGuess
from training.index_columns import RowCount
from training.roles import Roles, meant
from training.sources import CsvSource, Source
from training.upload import IngestOptions

_KINDS: Mapping[str, frozenset[str]] = {
    "integer": frozenset({"integer", "number"}),
    "number": frozenset({"integer", "number"}),
    "boolean": frozenset({"boolean"}),
    "datetime": frozenset({"datetime"}),
}
"""What a column of texts may turn out to be, when its uploader says its type."""


class Inferred(msgspec.Struct, frozen=True):
    """What the first pass found out. The line of a note is a row, counted from 0."""

    plans: dict[str, ColumnPlan]
    roles: Roles
    notes: list[Note]


def infer(source: Source, roles: Roles, options: IngestOptions) -> Inferred:
    """The plan of each column, what is left out, and notes about what was guessed.

    Raises BadRequest, BadData.
    """
    known = ColumnNames(source.names)
    asked = {meant(name, known, "types", BadRequest): kind for name, kind in parse_types(options.types).items()}
    guesses = {name: _guess(source, name, len(roles.kept), options, asked.get(name)) for name in roles.kept}
    counts = {name: RowCount(distinct=name in source.nameless) for name in roles.features if name not in asked}
    types = _first_pass(source, roles, guesses, counts)
    texts = {name: guess for name, guess in guesses.items() if pa.types.is_string(types[name])}
    order, notes = _number_styles(source, {n: guess for n, guess in texts.items() if n not in asked}, options.decimal)
    notes = [_index_note(name) for name in source.index if name in roles.dropped and name not in options.drop] + notes
    plans: dict[str, ColumnPlan] = {}
    for name in roles.kept:
        wanted = asked.get(name)
        if name not in texts:
            plans[name] = _plan_of_arrow(name, types[name], wanted, options)
            continue
        found = texts[name].plan(order, wanted.type, wanted.date) if wanted else texts[name].plan(order)
        if found.odd and name in (roles.target, roles.weight, roles.group):
            found = _strict(source, roles, texts[name], found, options.task)
        plans[name] = found.plan
        notes += found.notes
    _check_roles(plans, roles)
    return _without_row_numbers(Inferred(plans, roles, notes), source, counts)


def _first_pass(
    source: Source, roles: Roles, guesses: Mapping[str, TypeGuess], counts: Mapping[str, RowCount]
) -> dict[str, pa.DataType]:
    """The Arrow type of each column; guesses and counts have seen all values then."""
    types: dict[str, pa.DataType] = {}
    rows = 0
    for batch in source.batches(roles.dropped):
        rows += batch.num_rows
        for name, guess in guesses.items():
            values = column_of(batch, name)
            types.setdefault(name, values.type)
            if pa.types.is_string(types[name]):
                values = profile.trimmed(values, guess.reading)
                guess.update(values)
            if name in counts and (pa.types.is_string(types[name]) or pa.types.is_integer(types[name])):
                counts[name].update(values)
    if not rows:
        raise BadData("header_only", "the file has a header and no rows")
    return types


def _check_roles(plans: dict[str, ColumnPlan], roles: Roles) -> None:
    if plans[roles.target].type == "text":
        plans[roles.target] = msgspec.structs.replace(plans[roles.target], type="category")
    if roles.weight and plans[roles.weight].type not in ("integer", "number"):
        raise BadData("weight_type", f"the weight column {roles.weight!r} must hold numbers", {"column": roles.weight})


def _index_note(name: str) -> Note:
    message = f"column {name!r} is left out: pandas wrote it, an index without a name"
    return Note(code="index_left_out", message=message, column=name)


def _without_row_numbers(found: Inferred, source: Source, counts: Mapping[str, RowCount]) -> Inferred:
    """A column without a name that only says which row it is is no feature; one with a name may be one."""
    numbering = [name for name, count in counts.items() if count.counts]
    nameless = set(source.nameless).intersection(numbering)
    nameless |= {n for n, count in counts.items() if count.all_differ and found.plans[n].type == "integer"}
    if nameless >= set(found.roles.features):
        nameless = set()
    left_out = [name for name in found.roles.features if name in nameless]
    notes = [note for note in found.notes if note.column not in nameless]
    for name in left_out:
        message = f"column {name!r} is left out: it has no name, and only says which row it is"
        notes.append(Note(code="index_left_out", message=message, column=name))
    for name in numbering:
        if name not in nameless:
            message = f"column {name!r} only counts the rows: if it is no property of theirs, drop={name}"
            notes.append(Note(code="row_numbers", message=message, column=name))
    plans = {name: plan for name, plan in found.plans.items() if name not in nameless}
    return Inferred(plans, found.roles.without(left_out), notes)


def _guess(source: Source, name: str, columns: int, options: IngestOptions, wanted: AskedType | None) -> TypeGuess:
    kinds, reading = source.texts(name)
    kinds |= _KINDS.get(wanted.type, frozenset()) if wanted else frozenset()
    if options.missing is not None:
        reading = msgspec.structs.replace(reading, missing=options.missing, told=options.missing)
    told = options.missing is not None
    return TypeGuess(
        name, columns, kinds, reading, told_missing=told, quoted=name in source.quoted, bare=bool(source.quoted)
    )


def _plan_of_arrow(name: str, arrow: pa.DataType, wanted: AskedType | None, options: IngestOptions) -> ColumnPlan:
    reading = TYPED_VALUE
    if options.missing is not None:
        reading = msgspec.structs.replace(reading, missing=options.missing, told=options.missing)
    if wanted is None:
        return ColumnPlan(name, profile.typed(name, arrow), reading)
    return ColumnPlan(name, *of_arrow(name, arrow, wanted, reading))


def _number_styles(source: Source, texts: Mapping[str, TypeGuess], decimal: str) -> tuple[Sequence[Style], list[Note]]:
    """The styles of numbers that the file may have, the likelier ones first. One decimal mark, `decimal` if it is
    given, holds for all of it.

    Raises BadData: some columns prove a decimal point and others a decimal comma.
    """
    if decimal:
        if not isinstance(source, CsvSource):
            message = f"decimal is {decimal!r}: numbers of this file have none of their own; it is for text files"
            raise BadRequest("invalid_decimal", message, {"field": "decimal", "value": decimal})
        if decimal not in (".", ","):
            message = f"decimal is {decimal!r}: it must be a point or a comma"
            raise BadRequest("invalid_decimal", message, {"field": "decimal", "value": decimal, "allowed": [".", ","]})
        return [style for style in STYLES if style[0] == decimal], []
    if not isinstance(source, CsvSource):
        return STYLES, []
    proven: dict[str, tuple[str, str, int]] = {}
    for name, guess in texts.items():
        for mark, (value, row) in guess.decimals().items():
            proven.setdefault(mark, (name, value, row))
    if len(proven) > 1:
        shown = [
            f"line {source.line(row)}, column {name!r}: {value!r} has a decimal {'comma' if mark == ',' else 'point'}"
            for mark, (name, value, row) in sorted(proven.items())
        ]
        message = (
            f"{'; '.join(shown)}: in one file one of them can be meant. Say decimal=, or types=column:category "
            "of what is no number"
        )
        raise BadData("mixed_decimals", message, {"lines": shown})
    if "," in proven:
        name, value, row = proven[","]
        message = f"numbers are read with a decimal comma, as {value!r} in column {name!r}"
        note = Note(code="decimal_comma", message=message, line=row, value=value)
        return [style for style in STYLES if style[0] == ","], [note]
    if "." in proven:
        return [style for style in STYLES if style[0] == "."], []
    if source.delimiter == ";":  # chosen by those who write a decimal comma
        return sorted(STYLES, key=lambda style: (bool(style[1]), style[0] != ",")), []
    return STYLES, []


def _strict(source: Source, roles: Roles, guess: TypeGuess, found: Guess, task: str) -> Guess:
    """Of the target, a weight or a group no value may count as missing that is none."""
    if guess.name == roles.group or (guess.name == roles.target and task not in ("", "regression")):
        return guess.labels()
    value, row = found.odd[0]
    line, what = source.line(row), "date" if found.plan.type == "datetime" else "number"
    role = "target" if guess.name == roles.target else "weight"
    message = f"line {line}, column {guess.name!r}: {value!r} is no {what}, as the other values of the {role} are"
    if role == "target":
        message += f" (say types={guess.name}:category if they are labels)"
    raise BadData(f"{role}_value", message, {"row": line, "column": guess.name, "value": value})


def column_of(batch: pa.RecordBatch, name: str) -> pa.Array:
    index = batch.schema.get_field_index(name)
    if index < 0:
        return pa.nulls(batch.num_rows, pa.string())
    values = profile.as_texts(batch.column(index))
    try:
        values.validate(full=True)  # of typed files, whose bytes nobody has looked at yet
    except pa.ArrowInvalid as error:
        raise BadData("encoding", f"column {name!r} holds texts that are not UTF-8", {"column": name}) from error
    return values
