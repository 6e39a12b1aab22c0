"""Turns an uploaded file into a dataset: typed, described, checked, written as Parquet parts.

Two passes over the file, each with the memory of a few batches: the first finds each column's type, the second
converts, describes and writes. Runs in the workshop process.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from parvada.schema import Column, DatasetDetail, Note
from training import profile
from training.errors import BadData, BadRequest
from training.guess import ColumnPlan
from training.index_columns import ENOUGH_ROWS
from training.infer import Inferred, column_of, infer
from training.notes import located
from training.parts import PartWriter, dataset_digest
from training.profile import Description
from training.roles import Roles
from training.sources import Source, open_source
from training.target import resolve_target
from training.text_form import TextForm
from training.upload import IngestOptions, IngestResult, PartFile

__all__ = ["IngestOptions", "IngestResult", "PartFile", "ingest"]

MOST_MISSING, LONGEST_MISSING = 20, 40
_MAX_DETAIL_BYTES = 256 << 10


def ingest(path: str, options: IngestOptions) -> IngestResult:
    """Read the file at `path` into `options.out_dir`.

    Raises:
        BadRequest: an option names an unknown column, task or format.
        BadData: the file or its target cannot be used; the message names line, column and value.
    """
    work = Path(options.out_dir)
    _check_missing(options.missing or ())
    form = TextForm(options.separator, options.encoding, options.header, options.missing)
    source, kind = open_source(Path(path), options.format, work, options.max_bytes, options.room, form)
    found = infer(source, Roles.resolve(source, options), options)
    roles = found.roles
    writing = _Writing(source, roles, found.plans, work, options.room)
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
                source_format=kind,
                smallest_class=None if learnable.task == "regression" else columns[roles.target].smallest,
                notes=[*located(found.notes, source.line), *_unique(columns, found, rows), *learnable.notes],
            ),
            roles.target,
        ),
    )


def _check_missing(texts: Collection[str]) -> None:
    if len(texts) > MOST_MISSING or any(len(text) > LONGEST_MISSING for text in texts):
        message = f"missing: at most {MOST_MISSING} texts of {LONGEST_MISSING} characters can stand for a missing value"
        raise BadRequest("invalid_missing", message, {"field": "missing", "value": [text[:50] for text in texts][:50]})


class _Writing:
    """The second pass: rows with a target, converted, checked, described, written."""

    def __init__(self, source: Source, roles: Roles, plans: dict[str, ColumnPlan], work: Path, room: int) -> None:
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
            name: self._converted(plan, profile.clean(column_of(batch, name), plan.reading))
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


def _unique(columns: Mapping[str, Column], found: Inferred, rows: int) -> Iterator[Note]:
    """Features that tell each row from every other, and so may tell nothing but that."""
    numbering = {note.column for note in found.notes if note.code == "row_numbers"}
    for name in found.roles.features:
        column = columns[name]
        if column.distinct == rows >= ENOUGH_ROWS and column.type in ("integer", "category") and name not in numbering:
            message = f"column {name!r} has another value in each row: if it names the rows, drop={name}"
            yield Note(code="unique_per_row", message=message, column=name)


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
