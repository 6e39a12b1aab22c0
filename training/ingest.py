"""Turns an uploaded file into a dataset: typed, described, checked, written as Parquet parts.

Two passes over the file, each with the memory of a few batches: the first finds each column's type, the second
converts, describes and writes. Runs in the workshop process.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from parvada.names import AmbiguousName, ColumnNames, folded
from parvada.schema import Column, DatasetDetail, Note
from parvada.texts import TYPED_VALUE
from training import profile
from training.asked_types import AskedType, of_arrow, parse_types
from training.errors import BadData, BadRequest, nearest
from training.guess import STYLES, ColumnPlan, Guess, Style, TypeGuess
from training.notes import located
from training.parts import PartWriter, dataset_digest
from training.profile import Description
from training.sources import CsvSource, Source, TextForm, open_source
from training.target import resolve_target
from training.upload import IngestOptions, IngestResult, PartFile

__all__ = ["IngestOptions", "IngestResult", "PartFile", "ingest"]

_MAX_DETAIL_BYTES = 256 << 10


def ingest(path: str, options: IngestOptions) -> IngestResult:
    """Read the file at `path` into `options.out_dir`.

    Raises:
        BadRequest: an option names an unknown column, task or format.
        BadData: the file or its target cannot be used; the message names line, column and value.
    """
    work = Path(options.out_dir)
    form = TextForm(options.separator, options.encoding, options.header)
    source, found = open_source(Path(path), options.format, work, options.max_bytes, options.room, form)
    roles = _Roles.resolve(source.names, options)
    plans, notes = _infer(source, roles, options)
    writing = _Writing(source, roles, plans, work, options.room)
    for batch in source.batches(roles.dropped):
        writing.add(batch)
    parts = writing.finish()
    rows = sum(part.rows for part in parts)
    columns = {name: description.column() for name, description in writing.descriptions.items()}
    learnable = resolve_target(columns[roles.target], rows, options.task)
    return IngestResult(
        digest=dataset_digest(parts, roles.weight, roles.group),
        rows=rows,
        bytes=sum(part.bytes for part in parts),
        parts=parts,
        target=roles.target,
        task=learnable.task,
        detail=_trimmed(
            DatasetDetail(
                columns=list(columns.values()),
                weight=roles.weight or None,
                group=roles.group or None,
                dropped_rows=writing.dropped,
                dropped_columns=list(roles.dropped),
                source_format=found,
                smallest_class=None if learnable.task == "regression" else columns[roles.target].smallest,
                notes=[*located(notes, source.line), *learnable.notes],
            ),
            roles.target,
        ),
    )


class _Roles(msgspec.Struct, frozen=True):
    kept: tuple[str, ...]
    target: str
    weight: str
    group: str
    dropped: tuple[str, ...]

    @staticmethod
    def resolve(names: tuple[str, ...], options: IngestOptions) -> "_Roles":
        known = ColumnNames(names)
        target = _meant(options.target, known, "target", BadData)
        weight = _meant(options.weight, known, "weight", BadRequest)
        group = _meant(options.group, known, "group", BadRequest)
        dropped = tuple(dict.fromkeys(_meant(name, known, "drop", BadRequest) for name in options.drop))
        unused = {*dropped, weight, group}
        features = [name for name in names if name not in unused]
        target = target or (features[-1] if features else "")
        if target in unused:
            raise BadRequest("invalid_target", f"the target {target!r} cannot be dropped, weight or group as well")
        if weight and weight == group:
            raise BadRequest("invalid_weight", f"{weight!r} cannot be both weight and group")
        if features in ([], [target]):
            raise BadData("no_features", f"no column is left to learn from: the columns are {', '.join(names[:20])}")
        kept = tuple(name for name in names if name not in dropped)
        return _Roles(kept, target, weight, group, dropped)


def _meant(name: str, known: ColumnNames, role: str, error: type[BadData] | type[BadRequest]) -> str:
    """The own name of the column that `name` means, "" for none."""
    try:
        found = known.find(name) if name else ""
    except AmbiguousName as ambiguous:
        details = {"column": name, "columns": list(ambiguous.meant)}
        raise BadRequest("ambiguous_column", f"{role}: {ambiguous}", details) from ambiguous
    if found is not None:
        return found
    names = list(known)
    shown = ", ".join(map(folded, names[:20])) + (", …" if len(names) > 20 else "")
    raise error(
        f"{role}_missing" if role == "target" else f"unknown_{role}",
        f"the {role} column {name!r} is not in the file{nearest(name, names)}; its columns are {shown}",
        {"column": name, "columns": names[:100]},
    )


def _infer(source: Source, roles: _Roles, options: IngestOptions) -> tuple[dict[str, ColumnPlan], list[Note]]:
    """The plan of each column, and notes about what was guessed."""
    known = ColumnNames(source.names)
    asked = {_meant(name, known, "types", BadRequest): kind for name, kind in parse_types(options.types).items()}
    guesses = {name: _guess(source, name, len(roles.kept), options) for name in roles.kept}
    types: dict[str, pa.DataType] = {}
    rows = 0
    for batch in source.batches(roles.dropped):
        rows += batch.num_rows
        for name, guess in guesses.items():
            values = _column(batch, name)
            types.setdefault(name, values.type)
            if pa.types.is_string(types[name]):
                guess.update(profile.trimmed(values, guess.reading))
    if not rows:
        raise BadData("header_only", "the file has a header and no rows")
    texts = {name: guess for name, guess in guesses.items() if pa.types.is_string(types[name])}
    order, notes = _number_styles(source, {n: guess for n, guess in texts.items() if n not in asked}, options.decimal)
    plans: dict[str, ColumnPlan] = {}
    for name in roles.kept:
        wanted = asked.get(name)
        if name not in texts:
            plans[name] = _plan_of_arrow(name, types[name], wanted)
            continue
        found = texts[name].plan(order, wanted.type, wanted.date) if wanted else texts[name].plan(order)
        if found.odd and name in (roles.target, roles.weight, roles.group):
            found = _strict(source, roles, texts[name], found)
        plans[name] = found.plan
        notes += found.notes
    if plans[roles.target].type == "text":
        plans[roles.target] = msgspec.structs.replace(plans[roles.target], type="category")
    if roles.weight and plans[roles.weight].type not in ("integer", "number"):
        raise BadData("weight_type", f"the weight column {roles.weight!r} must hold numbers", {"column": roles.weight})
    return plans, notes


def _guess(source: Source, name: str, columns: int, options: IngestOptions) -> TypeGuess:
    kinds, reading = source.texts(name)
    if options.missing is None:
        return TypeGuess(name, columns, kinds, reading)
    reading = msgspec.structs.replace(reading, missing=options.missing)
    return TypeGuess(name, columns, kinds, reading, told_missing=True)


def _plan_of_arrow(name: str, arrow: pa.DataType, wanted: AskedType | None) -> ColumnPlan:
    if wanted is None:
        return ColumnPlan(name, profile.typed(name, arrow), TYPED_VALUE)
    return ColumnPlan(name, *of_arrow(name, arrow, wanted, TYPED_VALUE))


def _number_styles(source: Source, texts: Mapping[str, TypeGuess], decimal: str) -> tuple[Sequence[Style], list[Note]]:
    """The styles of numbers that the file may have, the likelier ones first. One decimal mark, `decimal` if it is
    given, holds for all of it.

    Raises BadData: some columns prove a decimal point and others a decimal comma.
    """
    if decimal:
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
        raise BadData("mixed_decimals", f"{'; '.join(shown)}: in one file one of them can be meant", {"lines": shown})
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


def _strict(source: Source, roles: _Roles, guess: TypeGuess, found: Guess) -> Guess:
    """Of the target, a weight or a group no value may count as missing that is none."""
    if guess.name == roles.group:
        return guess.labels()
    value, row = found.odd[0]
    line, what = source.line(row), "date" if found.plan.type == "datetime" else "number"
    role = "target" if guess.name == roles.target else "weight"
    message = f"line {line}, column {guess.name!r}: {value!r} is no {what}, as the other values of the {role} are"
    raise BadData(f"{role}_value", message, {"row": line, "column": guess.name, "value": value})


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    index = batch.schema.get_field_index(name)
    if index < 0:
        return pa.nulls(batch.num_rows, pa.string())
    return profile.as_texts(batch.column(index))


class _Writing:
    """The second pass: rows with a target, converted, checked, described, written."""

    def __init__(self, source: Source, roles: _Roles, plans: dict[str, ColumnPlan], work: Path, room: int) -> None:
        self._source = source
        self._roles = roles
        self._plans = plans
        self.descriptions = {name: Description(plan, len(plans)) for name, plan in plans.items()}
        self.kept = 0
        self.dropped = 0
        self._row = 0
        self._schema = pa.schema([(name, profile.ARROW_TYPES[plan.type]) for name, plan in plans.items()])
        self._writer = PartWriter(work, self._schema, room)

    def add(self, batch: pa.RecordBatch) -> None:
        columns = {
            name: self._converted(plan, profile.clean(_column(batch, name), plan.reading))
            for name, plan in self._plans.items()
        }
        table = pa.record_batch(list(columns.values()), schema=self._schema)
        kept = pc.is_valid(columns[self._roles.target])
        self._check_required(columns, kept)
        self._row += table.num_rows
        if not pc.all(kept).as_py():
            table = table.filter(kept)
        self.dropped += batch.num_rows - table.num_rows
        self.kept += table.num_rows
        for name, description in self.descriptions.items():
            description.update(table.column(name))
        if table.num_rows:
            self._writer.write(table)

    def finish(self) -> tuple[PartFile, ...]:
        if not self.kept:
            raise BadData(
                "no_target_values",
                f"no row has a value in the target {self._roles.target!r}",
                {"column": self._roles.target},
            )
        return self._writer.close()

    def _converted(self, plan: ColumnPlan, values: pa.Array) -> pa.Array:
        try:
            result = profile.convert(values, plan)
        except (pa.ArrowInvalid, ValueError) as error:
            if pa.types.is_string(values.type):
                kind = {"boolean": "neither true nor false", "datetime": "no date"}.get(plan.type, f"no {plan.type}")
                self._refuse(plan.name, profile.misfits(values, plan), "wrong_type", f"is {kind}", values)
            message = str(error).splitlines()[0][:200]
            raise BadData("wrong_type", f"column {plan.name!r}: {message}", {"column": plan.name}) from error
        if plan.type == "number":
            self._refuse(plan.name, pc.is_inf(result), "not_finite", "is not a finite number", result)
        return result

    def _check_required(self, columns: dict[str, pa.Array], kept: pa.Array) -> None:
        for role, name in (("weight", self._roles.weight), ("group", self._roles.group)):
            if name:
                values = columns[name]
                missing = pc.and_(kept, pc.is_null(values))
                self._refuse(name, missing, f"missing_{role}", f"is missing as {role}", values)
        if self._roles.weight:
            values = columns[self._roles.weight]
            self._refuse(self._roles.weight, pc.less(values, 0), "negative_weight", "is negative as weight", values)

    def _refuse(self, name: str, wrong: pa.Array, code: str, reason: str, values: pa.Array) -> None:
        """Raise BadData for the first row of this batch where `wrong` holds."""
        index = pc.index(pc.fill_null(wrong, False), True).as_py()
        if index < 0:
            return
        line = self._source.line(self._row + index)
        value = values[index].as_py()
        raise BadData(code, f"line {line}, column {name!r}: {value!r} {reason}", {"row": line, "column": name})


def _trimmed(detail: DatasetDetail, target: str) -> DatasetDetail:
    """The description goes into the replicated log: lists of categories give way where it would be too large, then the
    counts of what is not the target."""
    columns = list(detail.columns)
    longest = sorted(range(len(columns)), key=lambda i: -len(msgspec.json.encode(columns[i].categories)))
    size = len(msgspec.json.encode(detail))
    for index in longest:
        if size <= _MAX_DETAIL_BYTES or columns[index].categories is None:
            break
        size -= len(msgspec.json.encode(columns[index].categories))
        columns[index] = msgspec.structs.replace(columns[index], categories=None)
    if size > _MAX_DETAIL_BYTES:
        columns = [column if column.name == target else _uncounted(column) for column in columns]
    return msgspec.structs.replace(detail, columns=columns)


def _uncounted(column: Column) -> Column:
    return msgspec.structs.replace(column, smallest=None, rarest=None, largest=None)
