"""From the replicated state to the tasks that are run: what a fold, a refit and a publication of a candidate are."""

from collections.abc import Mapping
from typing import Any

import msgspec
from immutables import Map

from consensus.progress import standings
from consensus.queries import current_version, find_version
from consensus.state import Candidate, ClusterState, DatasetVersion, Job, Json, Unit
from parvada.schema import (
    DatasetVersionRef,
    FinalResult,
    InputField,
    UnitDetail,
    VersionDetail,
)
from training.choice import BASELINES
from training.decoded import description_of, detail_of, spec_of
from training.errors import TrainingError, plain
from training.metrics import METRICS, better, greater_is_better
from training.plan import REFIT, Work
from training.ports import Task
from training.preprocess import PREPROCESS_PREFIX, PreprocessOptions
from training.tasks import DataView, FoldTask, Recipe, RefitOutcome, RefitTask, SplitPlan

Scores = Mapping[int, Mapping[str, float]]
"""All metrics of the finished folds of a candidate."""
_MAX_CATEGORIES = 100
"""Listed in a model's signature, for information: an unseen category is accepted anyway."""


class Assignment(msgspec.Struct, frozen=True):
    """All that is needed to run one work item."""

    job: Job
    unit: Unit
    candidate: Candidate
    dataset: DatasetVersion
    task: Task


def assignment(state: ClusterState, work: Work) -> Assignment:
    """Raises TrainingError: the job or its dataset is gone."""
    job = state.jobs.get(work.job)
    candidate = job.candidates.get(work.candidate) if job else None
    if job is None or candidate is None:
        raise TrainingError(f"job {work.job} has no candidate {work.candidate}")
    unit = job.units[candidate.unit]
    dataset = current_version(state, unit.dataset, unit.version)
    if dataset is None:
        raise TrainingError(f"dataset {unit.dataset} version {unit.version} is gone")
    limits = spec_of(job).limits
    recipe, view = _recipe(unit, candidate), data_view(unit, dataset)
    memory = limits.fit_memory_mb
    payload: object = FoldTask(view, recipe, work.fold, memory)
    if work.fold == REFIT:
        payload = RefitTask(view, recipe, memory, store=detail_of(unit).publish_when != "never")
    task = Task(
        function="training.trial:refit" if work.fold == REFIT else "training.trial:run_fold",
        payload=payload,
        data_key=dataset.digest,
        seconds=limits.fit_seconds,
        label=f"{work.job}/{work.candidate}/{'refit' if work.fold == REFIT else work.fold}",
    )
    return Assignment(job, unit, candidate, dataset, task)


def data_view(unit: Unit, dataset: DatasetVersion) -> DataView:
    detail, described = detail_of(unit), description_of(dataset)
    unused = (unit.target, detail.weight, detail.group, *detail.drop, *described.dropped_columns)
    inputs = [
        InputField(
            name=column.name,
            type=column.type,
            required=not column.nullable,
            categories=column.categories[:_MAX_CATEGORIES] if column.categories else None,
            reading=column.reading,
        )
        for column in described.columns
        if column.name not in unused
    ]
    ignored = list(dict.fromkeys(name for name in unused if name))
    return DataView(unit.target, unit.task, inputs, detail.weight, detail.group, ignored)


def _recipe(unit: Unit, candidate: Candidate) -> Recipe:
    given: dict[str, Any] = msgspec.json.decode(candidate.params)
    options = {k.removeprefix(PREPROCESS_PREFIX): v for k, v in given.items() if k.startswith(PREPROCESS_PREFIX)}
    detail = detail_of(unit)
    return Recipe(
        estimator=candidate.estimator,
        params={name: value for name, value in given.items() if not name.startswith(PREPROCESS_PREFIX)},
        preprocess=msgspec.convert(options, PreprocessOptions),
        seed=candidate.seed,
        metric=unit.metric,
        split=SplitPlan(detail.folds, detail.repeats, detail.holdout, detail.seed),
    )


# ---------------------------------------------------------------- publication
class Publication(msgspec.Struct, frozen=True):
    """How a refitted candidate is published."""

    model: str
    alias: str
    move_alias: bool
    detail: VersionDetail


def publication(
    state: ClusterState, given: Assignment, outcome: RefitOutcome, scores: Scores | None = None
) -> Publication | None:
    """None when the job publishes nothing. `scores`: see `version_metrics`. Raises TrainingError: the outcome has no
    signature."""
    rule = detail_of(given.unit)
    if rule.publish_when == "never":
        return None
    if outcome.signature is None:
        raise TrainingError("a refit without a signature cannot be published")
    detail = VersionDetail(
        params=msgspec.json.decode(given.candidate.params),
        signature=outcome.signature,
        metrics=version_metrics(given.unit, given.candidate, outcome, scores),
        dataset=DatasetVersionRef(name=given.dataset.name, version=given.dataset.version, digest=given.dataset.digest),
        libraries=dict(outcome.libraries),
        engine_reason="models are served by scikit-learn",
    )
    move = _moves(state, given, rule, detail.metrics)
    return Publication(rule.publish_model, rule.publish_alias, move, detail)


def version_metrics(
    unit: Unit, candidate: Candidate, outcome: RefitOutcome, scores: Scores | None = None
) -> dict[str, float]:
    """Means over the folds under the metrics' names, the deviation of the unit's own, and those of the holdout.
    `scores`: all metrics of the folds of a tallied job's candidate, which has the unit's own alone."""
    found: dict[str, float] = {}
    for metric in METRICS[unit.task]:
        measured = candidate if metric == unit.metric else with_metric(candidate, metric, scores or {})
        (row,) = standings([measured], metric, greater_is_better=greater_is_better(metric))
        if row.mean is not None:
            found[metric] = row.mean
            if metric == unit.metric and row.std is not None:
                found[f"{metric}_std"] = row.std
    return found | {f"holdout_{name}": value for name, value in outcome.holdout.items()}


def with_metric(candidate: Candidate, metric: str, scores: Scores) -> Candidate:
    """The candidate of a tallied job as if `metric` were its unit's; any other as it is."""
    if not candidate.scores:
        return candidate
    return msgspec.structs.replace(
        candidate, scores=Map({fold: scores.get(fold, {}).get(metric) for fold in candidate.scores})
    )


def _moves(state: ClusterState, given: Assignment, rule: UnitDetail, metrics: dict[str, float]) -> bool:
    """Whether the alias moves: always, or when the version it names now is worse by the same metric of the same
    task (or cannot be compared). A baseline never takes the place of a model, and always leaves it to one."""
    unit, alias = given.unit, rule.publish_alias
    known = state.models.get(rule.publish_model)
    present = (
        find_version(state, rule.publish_model, known.aliases[alias]) if known and alias in known.aliases else None
    )
    if rule.publish_when == "always" or present is None or present.task != unit.task:
        return True
    if (present.estimator in BASELINES) != (given.candidate.estimator in BASELINES):
        return present.estimator in BASELINES
    before = msgspec.json.decode(present.detail, type=VersionDetail).metrics.get(unit.metric)
    return before is None or better(unit.metric, metrics[unit.metric], before)


def final_result(outcome: RefitOutcome, model: str | None = None, version: int | None = None) -> Json:
    result = FinalResult(
        holdout=dict(outcome.holdout),
        model_bytes=outcome.model_bytes,
        fit_seconds=outcome.fit_seconds,
        model=model,
        version=version,
        error=plain(outcome.failed) or None,
    )
    return Json(msgspec.json.encode(result))
