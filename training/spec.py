"""From what a user asked for to what will run: a job's datasets pinned, its settings resolved, its candidates
listed with their seeds. Everything that can be wrong with a job is found here, when it is submitted."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from consensus.messages import NewCandidate
from consensus.state import DatasetVersion, Json, Tally, Unit
from parvada.identifiers import is_name
from parvada.names import AmbiguousName, ColumnNames
from parvada.nearest import did_you_mean
from parvada.schema import CandidateSpec, CandidateTemplate, DatasetDetail, DatasetRef, JobSpec, Note, UnitDetail
from training import catalog, search
from training.choice import BASELINES
from training.errors import BadRequest
from training.goal import fit_folds, goal_of
from training.metrics import NEEDS, greater_is_better, resolve_metric
from training.notes import ABOUT_FEATURES, ABOUT_TARGETS
from training.preprocess import PREPROCESS_PREFIX, parse_options
from training.proposals import candidate_seed, proposals

MAX_CANDIDATES = 20_000
"""Of a job."""
MAX_CANDIDATES_WHOLE = 2_000
"""Of a job that is kept whole: its command stays below the 1 MiB of one log entry."""
MAX_PARAMETERS = 16 * 1024 * 1024
"""Bytes of the parameters of all candidates of a job: every node keeps them in memory."""
_CHECKED_DRAWS = 100
"""So many parameters drawn from ranges are checked; scikit-learn's constraints hold for all of a range alike."""


def _ranges(form: type[msgspec.Struct], prefix: str = "") -> Mapping[str, tuple[float, float]]:
    """What the schema says of the numbers of a job, by their dotted names."""
    found: dict[str, tuple[float, float]] = {}
    for field in msgspec.structs.fields(form):
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            found |= _ranges(field.type, f"{prefix}{field.name}.")
        for mark in getattr(field.type, "__metadata__", ()):
            said = mark.extra_json_schema or {}
            if "minimum" in said:
                found[prefix + field.name] = (said["minimum"], said["maximum"])
    return found


_RANGES = _ranges(JobSpec)


class ResolvedJob(msgspec.Struct, frozen=True):
    units: tuple[Unit, ...]
    candidates: tuple[NewCandidate, ...]


def resolve_job(spec: JobSpec, datasets: Sequence[DatasetVersion], tallied: bool = False) -> ResolvedJob:
    """Check `spec` and make its units and candidates. `datasets[i]` is the version that `spec.datasets[i]` means. Of a
    `tallied` job (level 2) the units have tallies and templates instead, from which `training.proposals` makes the same
    candidates.

    Raises:
        BadRequest: a value that is unknown or out of range; `details` has field, value and what is allowed.
        BadData: a dataset that is too small.
    """
    _check_ranges(spec)
    if not spec.datasets or len(spec.datasets) != len(datasets):
        raise BadRequest("no_datasets", "datasets: at least one dataset is needed", {"field": "datasets"})
    units: list[Unit] = []
    candidates: list[NewCandidate] = []
    parameters = 0
    for number, (asked, dataset) in enumerate(zip(spec.datasets, datasets, strict=True)):
        ref = asked if isinstance(asked, DatasetRef) else DatasetRef(name=asked)
        unit, size = _unit(spec, ref, dataset, f"datasets[{number}]")
        unit, made = _with_templates(spec, number, unit, size)
        units.append(unit)
        candidates += made
        most = MAX_CANDIDATES if tallied else MAX_CANDIDATES_WHOLE
        if len(candidates) > most:
            raise BadRequest("too_many_candidates", f"the job has {len(candidates)} candidates, at most {most}")
        parameters += sum(len(new.params) for new in made)
        if parameters > MAX_PARAMETERS:
            message = f"the parameters of the job's candidates have {parameters:,} bytes, at most {MAX_PARAMETERS:,}"
            raise BadRequest("too_large", f"{message}: try fewer of them, or shorter ones")
    _check_models_differ(units)
    if tallied:
        return ResolvedJob(tuple(units), ())
    return ResolvedJob(tuple(msgspec.structs.replace(unit, tally=None) for unit in units), tuple(candidates))


def _check_ranges(spec: JobSpec) -> None:
    for field, (low, high) in _RANGES.items():
        value: Any = spec
        for part in field.split("."):
            value = getattr(value, part)
        if not low <= value <= high:
            raise BadRequest(
                "invalid_value",
                f"{field} is {value}: it must be {low} to {high}",
                {"field": field, "value": value, "allowed": {"low": low, "high": high}},
            )
    if not is_name(spec.publish.alias):
        raise _invalid_name("publish.alias", spec.publish.alias)


def _invalid_name(field: str, value: str) -> BadRequest:
    return BadRequest(
        "invalid_name",
        f"{field}: {value!r} is not a name: letters, digits, dot, dash and underscore, at most 128, are allowed",
        {"field": field, "value": value},
    )


def _unit(spec: JobSpec, ref: DatasetRef, dataset: DatasetVersion, field: str) -> tuple[Unit, catalog.Size]:
    detail = msgspec.json.decode(dataset.detail, type=DatasetDetail)
    columns = {column.name: column for column in detail.columns}
    ref = _with_own_names(ref, ColumnNames(columns), field)
    target = ref.target or dataset.target
    goal = goal_of(columns[target], dataset, detail, f"{field}.target")
    weight = None if detail.weight in (target, *ref.drop) else detail.weight
    group = None if detail.group in (target, *ref.drop) else detail.group
    used = [name for name in columns if name not in (target, weight, group, *ref.drop)]
    if target in ref.drop or not used:
        what = f"the target {target!r} cannot be dropped" if target in ref.drop else "no column is left to learn from"
        raise BadRequest("invalid_drop", f"{field}.drop: {what}", {"field": f"{field}.drop", "value": ref.drop})
    groups = columns[group].distinct if group else None
    folds, why_folds = fit_folds(spec.cv, dataset.name, goal, groups)
    metric, why_metric = resolve_metric(spec.metric, goal.task, goal.classes)
    told = [note.message for note in detail.notes if _concerns(note, target, ref.drop)]
    model = spec.publish.model.replace("{dataset}", dataset.name).replace("{target}", target)
    if not is_name(model):
        raise _invalid_name("publish.model", model)
    unit_detail = UnitDetail(
        drop=list(ref.drop),
        folds=folds,
        repeats=spec.cv.repeats,
        holdout=spec.cv.holdout,
        seed=spec.seed,
        publish_model=model,
        publish_alias=spec.publish.alias,
        publish_when=spec.publish.when,
        weight=weight,
        group=group,
        notes=[note for note in (*told, *goal.notes, *why_folds, why_metric) if note],
    )
    encoded = Json(msgspec.json.encode(unit_detail))
    unit = Unit(dataset.name, dataset.version, target, goal.task, metric, encoded)
    return unit, catalog.Size(goal.rows, goal.smallest)


def _concerns(note: Note, target: str, dropped: Collection[str]) -> bool:
    """Whether a note about the data matters for a job with this target."""
    other_role = ABOUT_FEATURES if note.column == target else ABOUT_TARGETS
    return note.column not in dropped and note.code not in other_role


def _with_own_names(ref: DatasetRef, columns: ColumnNames, field: str) -> DatasetRef:
    """Its target and what it drops as the dataset's columns are really named."""
    target = None if ref.target is None else _meant(ref.target, ref.name, columns, f"{field}.target")
    drop = [_meant(name, ref.name, columns, f"{field}.drop") for name in ref.drop]
    return msgspec.structs.replace(ref, target=target, drop=drop)


def _meant(name: str, dataset: str, columns: ColumnNames, field: str) -> str:
    details = {"field": field, "value": name}
    try:
        found = columns.find(name)
    except AmbiguousName as error:
        raise BadRequest("ambiguous_column", f"{field}: {error}", details | {"allowed": list(error.meant)}) from error
    if found is None:
        raise BadRequest(
            "unknown_column",
            f"{field}: {dataset} has no column {name!r}{did_you_mean(name, columns)}",
            details | {"allowed": list(columns)[:100]},
        )
    return found


def _with_templates(
    spec: JobSpec, number: int, unit: Unit, size: catalog.Size
) -> tuple[Unit, tuple[NewCandidate, ...]]:
    """The unit with its templates and the tally to begin with, and the candidates that it will have."""
    detail = msgspec.json.decode(unit.detail, type=UnitDetail)
    templates = list(_templates(spec, number, unit, size))
    detail = msgspec.structs.replace(detail, templates=templates)
    made = tuple(proposals(detail, number))
    tally = Tally(len(made), detail.folds * detail.repeats, greater_is_better(unit.metric))
    return msgspec.structs.replace(unit, detail=Json(msgspec.json.encode(detail)), tally=tally), made


def _templates(spec: JobSpec, number: int, unit: Unit, size: catalog.Size) -> Iterator[CandidateTemplate]:
    kind = catalog.kind_of(unit.task)
    scored, names, count = False, [], 0
    for field, asked in _asked(spec, kind):
        preprocess = parse_options(asked.preprocess, f"{field}.preprocess")
        options = {PREPROCESS_PREFIX + name: value for name, value in msgspec.structs.asdict(preprocess).items()}
        space, method = search.space_of(asked.estimator, asked.params, asked.search, spec.search, field)
        plain = {name: value for name, value in asked.params.items() if name not in space}
        template = CandidateTemplate(
            estimator=asked.estimator,
            params=catalog.check(kind, asked.estimator, plain, field, size),
            space=dict(space),
            method=method,
            trials=spec.search.trials if method == "random" else 0,
            seed=candidate_seed(spec.seed, number, count),
            options={k: v for k, v in options.items() if k.removeprefix(PREPROCESS_PREFIX) in asked.preprocess},
            baseline=asked.estimator in BASELINES,
        )
        for checked in _checked(kind, template, plain, field, size):
            scored = scored or catalog.can_score(kind, asked.estimator, checked, unit.metric)
        count += sum(1 for _ in search.combinations(template))
        names.append(asked.estimator)
        yield template
    if not scored:
        raise _unscored(unit.metric, names)


def _checked(
    kind: str, template: CandidateTemplate, plain: Mapping[str, Any], field: str, size: catalog.Size
) -> Iterator[dict[str, Any]]:
    """The parameters of the candidates, checked, of as many as it takes to have seen every listed value and enough of
    what is drawn from ranges: constraints are those of single parameters."""
    seen: set[tuple[str, str]] = set()
    ranges = {name for name, values in template.space.items() if not isinstance(values, list)}
    drawn = 0
    for params in search.combinations(template):
        fresh = {(name, repr(params[name])) for name in template.space if name not in ranges} - seen
        if seen and not fresh and (not ranges or drawn >= _CHECKED_DRAWS):
            continue
        seen |= fresh or {("", "")}
        drawn += 1
        yield catalog.check(kind, template.estimator, {**plain, **{n: params[n] for n in template.space}}, field, size)


def _unscored(metric: str, estimators: Sequence[str]) -> BadRequest:
    names, needed = ", ".join(dict.fromkeys(estimators)), " or ".join(NEEDS[metric])
    return BadRequest(
        "undefined_metric",
        f"metric: {metric} needs {needed}, which {names[:200]} cannot give: choose another metric, or other models",
        {"field": "metric", "value": metric},
    )


def _asked(spec: JobSpec, kind: str) -> list[tuple[str, CandidateSpec]]:
    if spec.models == "default":
        return [("models", CandidateSpec(estimator=name)) for name in catalog.default_names(kind)]
    if spec.models == "all":
        return [("models", CandidateSpec(estimator=name)) for name in catalog.estimators(kind)]
    if not spec.models:
        raise BadRequest("no_models", 'models: "default", "all" or a list of estimators is needed', {"field": "models"})
    return [
        (f"models[{i}]", asked if isinstance(asked, CandidateSpec) else CandidateSpec(estimator=asked))
        for i, asked in enumerate(spec.models)
    ]


def _check_models_differ(units: Sequence[Unit]) -> None:
    names = [msgspec.json.decode(unit.detail, type=UnitDetail).publish_model for unit in units]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise BadRequest(
            "same_model",
            f"publish.model: several datasets would be published as {twice!r}: use {{dataset}} or {{target}} in it",
            {"field": "publish.model", "value": twice},
        )
