"""Turns an uploaded file into a dataset: typed, described, checked, written as Parquet parts.

Two passes over the file, each with the memory of a few batches: the first finds each column's type, the second
converts, describes and writes. Runs in the workshop process.
"""

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from parvada.schema import DatasetDetail
from training import profile
from training.errors import BadData, BadRequest, nearest
from training.parts import PartWriter, dataset_digest
from training.profile import ColumnPlan, Description, TypeGuess
from training.sources import CsvSource, Source, open_source
from training.target import TargetCounter, resolve_task
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
    source, found = open_source(Path(path), options.format, work, options.max_bytes, options.room)
    roles = _Roles.resolve(source.names, options)
    plans = _infer(source, roles)
    writing = _Writing(source, roles, plans, work, options.room)
    for batch in source.batches():
        writing.add(batch)
    parts = writing.finish()
    task = resolve_task(roles.target, plans[roles.target].type, writing.target, options.task)
    return IngestResult(
        digest=dataset_digest(parts, roles.weight, roles.group),
        rows=sum(part.rows for part in parts),
        bytes=sum(part.bytes for part in parts),
        parts=parts,
        target=roles.target,
        task=task,
        detail=_trimmed(
            DatasetDetail(
                columns=[description.column() for description in writing.descriptions.values()],
                weight=roles.weight or None,
                group=roles.group or None,
                dropped_rows=writing.dropped,
                dropped_columns=list(roles.dropped),
                source_format=found,
                smallest_class=None if task == "regression" else min(writing.target.counts.values()),
            )
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
        for role, name in (("weight", options.weight), ("group", options.group)):
            _known(name, names, role, BadRequest)
        for name in options.drop:
            _known(name, names, "drop", BadRequest)
        _known(options.target, names, "target", BadData)
        features = [name for name in names if name not in {*options.drop, options.weight, options.group}]
        target = options.target or (features[-1] if features else "")
        if target in (*options.drop, options.weight, options.group):
            raise BadRequest("invalid_target", f"the target {target!r} cannot be dropped, weight or group as well")
        if options.weight and options.weight == options.group:
            raise BadRequest("invalid_weight", f"{options.weight!r} cannot be both weight and group")
        if features in ([], [target]):
            raise BadData("no_features", f"no column is left to learn from: the columns are {', '.join(names[:20])}")
        kept = tuple(name for name in names if name not in options.drop)
        return _Roles(kept, target, options.weight, options.group, tuple(options.drop))


def _known(name: str, names: tuple[str, ...], role: str, error: type[BadData] | type[BadRequest]) -> None:
    if not name or name in names:
        return
    shown = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    raise error(
        f"{role}_missing" if role == "target" else f"unknown_{role}",
        f"the {role} column {name!r} is not in the file{nearest(name, names)}; its columns are {shown}",
        {"column": name, "columns": list(names[:100])},
    )


def _infer(source: Source, roles: _Roles) -> dict[str, ColumnPlan]:
    comma = isinstance(source, CsvSource) and source.delimiter == ";"
    guesses = {name: TypeGuess(name, len(roles.kept), comma=comma) for name in roles.kept}
    rows = 0
    for batch in source.batches():
        rows += batch.num_rows
        for name, guess in guesses.items():
            guess.update(_column(batch, name, textual=source.textual))
    if not rows:
        raise BadData("header_only", "the file has a header and no rows")
    plans = {name: guess.plan(textual=source.textual) for name, guess in guesses.items()}
    if plans[roles.target].type == "text":
        plans[roles.target] = ColumnPlan(roles.target, "category")
    if roles.weight and plans[roles.weight].type not in ("integer", "number"):
        raise BadData("weight_type", f"the weight column {roles.weight!r} must hold numbers", {"column": roles.weight})
    return plans


def _column(batch: pa.RecordBatch, name: str, *, textual: bool) -> pa.Array:
    index = batch.schema.get_field_index(name)
    if index < 0:
        return pa.nulls(batch.num_rows, pa.string())
    return profile.clean(batch.column(index), textual=textual)


class _Writing:
    """The second pass: rows with a target, converted, checked, described, written."""

    def __init__(self, source: Source, roles: _Roles, plans: dict[str, ColumnPlan], work: Path, room: int) -> None:
        self._source = source
        self._roles = roles
        self._plans = plans
        self.descriptions = {name: Description(plan, len(plans)) for name, plan in plans.items()}
        self.target = TargetCounter()
        self.dropped = 0
        self._row = 0
        self._schema = pa.schema([(name, profile.ARROW_TYPES[plan.type]) for name, plan in plans.items()])
        self._writer = PartWriter(work, self._schema, room)

    def add(self, batch: pa.RecordBatch) -> None:
        columns = {
            name: self._converted(plan, _column(batch, name, textual=self._source.textual))
            for name, plan in self._plans.items()
        }
        table = pa.record_batch(list(columns.values()), schema=self._schema)
        kept = pc.is_valid(columns[self._roles.target])
        self._check_required(columns, kept)
        self._row += table.num_rows
        if not pc.all(kept).as_py():
            table = table.filter(kept)
        self.dropped += batch.num_rows - table.num_rows
        self.target.update(table.column(self._roles.target))
        for name, description in self.descriptions.items():
            description.update(table.column(name))
        if table.num_rows:
            self._writer.write(table)

    def finish(self) -> tuple[PartFile, ...]:
        if not self.target.rows:
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


def _trimmed(detail: DatasetDetail) -> DatasetDetail:
    """The description goes into the replicated log: lists of categories give way where it would be too large."""
    columns = list(detail.columns)
    longest = sorted(range(len(columns)), key=lambda i: -len(msgspec.json.encode(columns[i].categories)))
    size = len(msgspec.json.encode(detail))
    for index in longest:
        if size <= _MAX_DETAIL_BYTES or columns[index].categories is None:
            break
        size -= len(msgspec.json.encode(columns[index].categories))
        columns[index] = msgspec.structs.replace(columns[index], categories=None)
    return msgspec.structs.replace(detail, columns=columns)
