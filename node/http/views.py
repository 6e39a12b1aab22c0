"""From the replicated state to what the wire shows: pure, one function a struct of `parvada.schema`."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from consensus import state as facts
from consensus.progress import Standing, best_so_far, by_unit, job_progress, mean_score
from consensus.queries import aliases_of, folds_done, holders, published_version
from consensus.shares import epoch_shares
from consensus.state import CandidateId, CandidateState, ClusterState, JobState, Json
from parvada import schema
from training.choice import chosen, ranked, unbeaten
from training.decoded import detail_of, spec_of


def iso(at: float) -> str:
    """ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def shown_at(at: float) -> float:
    """The time that `iso` shows, which is cut to the millisecond: whoever asks as of a time that was shown means it."""
    return datetime.fromisoformat(iso(at)).timestamp()


# ---------------------------------------------------------------- datasets
def dataset(state: ClusterState, version: facts.DatasetVersion) -> schema.Dataset:
    detail = msgspec.json.decode(version.detail, type=schema.DatasetDetail)
    whole = state.datasets[version.name]
    return schema.Dataset(
        name=version.name,
        version=version.version,
        digest=version.digest,
        rows=version.rows,
        bytes=version.bytes,
        parts=len(version.parts),
        target=version.target,
        task=msgspec.convert(version.task, schema.Task),
        columns=detail.columns,
        created_at=iso(version.created_at),
        created_by=version.created_by,
        holders={part.digest: list(holders(state, part.digest)) for part in version.parts},
        dropped_rows=detail.dropped_rows,
        weight=detail.weight,
        group=detail.group,
        versions=sorted(whole.versions),
        notes=detail.notes,
    )


# ---------------------------------------------------------------- jobs
def job(state: ClusterState, found: facts.Job) -> schema.Job:
    return _job(state, found, [_unit_told(state, found, number, mine) for number, mine in enumerate(by_unit(found))])


def job_summary(state: ClusterState, found: facts.Job) -> schema.Job:
    """As `job`, but nothing is ranked for it: what the tallies know is told, and costs the same for any job."""
    return _job(state, found, [_unit_summary(state, found, number) for number in range(len(found.units))])


def _job(state: ClusterState, found: facts.Job, units: list[schema.UnitProgress]) -> schema.Job:
    return schema.Job(
        id=found.id,
        name=found.name,
        state=found.state.value,
        spec=spec_of(found),
        progress=progress(state, found),
        per_dataset=units,
        created_at=iso(found.created_at),
        created_by=found.created_by,
        started_at=iso(found.started_at) if found.started_at else None,
        ended_at=iso(found.ended_at) if found.ended_at else None,
        epochs=list(found.epochs),
        resumed=max(0, len(found.epochs) - 1),
        error=found.error or None,
        sealed=found.sealed,
    )


def progress(state: ClusterState, found: facts.Job, unit: int | None = None) -> schema.Progress:
    """A fit is one fold of one candidate. The estimate assumes that the folds to come cost what those done did, on as
    many CPUs as run folds now."""
    counts = job_progress(found, state.epoch.number, unit)
    # Results on their way into the log are of folds that the state still calls running, though their CPUs are free.
    cpus = sum(epoch_shares(state).values()) or counts.running
    running = min(counts.running, cpus) if found.state is JobState.RUNNING else 0
    eta = counts.remaining * counts.mean_fold_seconds / running if running and counts.done else None
    return schema.Progress(
        trials_total=counts.total,
        trials_done=counts.done,
        trials_failed=counts.failed + counts.skipped,
        trials_running=running,
        fits_total=counts.total,
        fits_done=counts.done,
        fits_failed=counts.failed + counts.skipped,
        fits_running=running,
        fraction=round(counts.fraction, 4),
        eta_seconds=round(eta, 1) if eta is not None else None,
    )


def _unit_told(
    state: ClusterState, found: facts.Job, number: int, candidates: list[facts.Candidate]
) -> schema.UnitProgress:
    unit = found.units[number]
    if unit.tally is not None and not (unit.done or found.sealed):
        # Its tally knows the best so far: thousands of candidates are not ranked for each look at a running job.
        best = found.candidates.get(best_so_far(found, number) or CandidateId(""))
        if best is not None and not best.final:
            return _unit_summary(state, found, number)
    return unit_progress(state, found, number, ranked(candidates, unit.metric))


def unit_progress(
    state: ClusterState, found: facts.Job, number: int, rows: tuple[Standing, ...]
) -> schema.UnitProgress:
    unit = found.units[number]
    best = chosen(rows)
    published = None
    if best is not None and best.candidate.final:
        published = published_version(state, found.id, best.candidate.id)
    progress = _unit(state, found, number, best.candidate if best is not None else None, _unit_notes(unit, rows))
    if published is not None:
        progress.model, progress.model_version = published.model, published.version
    return progress


def _unit_summary(state: ClusterState, found: facts.Job, number: int) -> schema.UnitProgress:
    unit = found.units[number]
    name = best_so_far(found, number)
    best = found.candidates.get(name) if name is not None else None
    progress = _unit(state, found, number, best, detail_of(unit).notes)
    if best is not None and best.final:
        published = _version_of(state, found, best)
        if published is not None:
            progress.model, progress.model_version = published.model, published.version
    return progress


def _version_of(state: ClusterState, found: facts.Job, candidate: facts.Candidate) -> facts.ModelVersion | None:
    """What a candidate became, by what its final result says: no look through all models."""
    final = _final(candidate)
    model = state.models.get(final.model) if final.model else None
    if model is None:
        return None
    told = model.versions.get(final.version or model.latest)
    if told is not None and (told.job, told.candidate) == (found.id, candidate.id):
        return told
    return published_version(state, found.id, candidate.id)


def _unit(
    state: ClusterState, found: facts.Job, number: int, best: facts.Candidate | None, notes: list[str]
) -> schema.UnitProgress:
    unit = found.units[number]
    return schema.UnitProgress(
        dataset=unit.dataset,
        version=unit.version,
        target=unit.target,
        task=msgspec.convert(unit.task, schema.Task),
        metric=unit.metric,
        state=_unit_state(found, unit),
        progress=progress(state, found, number),
        best=best.id if best is not None else None,
        best_estimator=best.estimator if best is not None else None,
        best_score=mean_score(best, unit.metric) if best is not None else None,
        error=unit.error or None,
        notes=notes,
    )


def _unit_notes(unit: facts.Unit, rows: tuple[Standing, ...]) -> list[str]:
    """What was noted when it was submitted, and in the end what its scores are worth."""
    notes = detail_of(unit).notes
    verdict = unbeaten(rows, unit.metric) if unit.done else ""
    return [*notes, verdict] if verdict else notes


def _unit_state(found: facts.Job, unit: facts.Unit) -> Any:
    if unit.done:
        return "failed" if unit.error else "done"
    return "running" if found.state is JobState.RUNNING else "queued"


def _final(candidate: facts.Candidate) -> schema.FinalResult:
    return msgspec.json.decode(candidate.final, type=schema.FinalResult) if candidate.final else schema.FinalResult()


def leaderboard(state: ClusterState, found: facts.Job, only: str | None = None) -> schema.Leaderboard:
    """Rows best first, dataset by dataset; every candidate has one. Of several datasets each note names its own."""
    rows: list[schema.LeaderboardRow] = []
    notes: list[str] = []
    for unit, mine in zip(found.units, by_unit(found), strict=True):
        if only is None or unit.dataset == only:
            standing = ranked(mine, unit.metric)
            rows += _unit_rows(state, found, unit, standing)
            of = f"{unit.dataset}: " if len(found.units) > 1 else ""
            notes += [of + note for note in _unit_notes(unit, standing)]
    return schema.Leaderboard(job=found.id, rows=rows, notes=notes)


def _unit_rows(
    state: ClusterState, found: facts.Job, unit: facts.Unit, rows: tuple[Standing, ...]
) -> list[schema.LeaderboardRow]:
    front = _pareto(rows)
    return [_row(state, found, unit, row, row.candidate.id in front) for row in rows]


def _pareto(ranked: tuple[Standing, ...]) -> set[str]:
    """Candidates that no other beats in both score and speed of prediction."""
    front: set[str] = set()
    fastest = float("inf")
    # Best score first: a row is on the front when it is faster than all that score better.
    for row in ranked:
        if row.rank is None or row.mean is None or row.predict_us_per_row is None:
            continue
        if row.predict_us_per_row < fastest:
            front.add(row.candidate.id)
            fastest = row.predict_us_per_row
    return front


def _row(
    state: ClusterState, found: facts.Job, unit: facts.Unit, standing: Standing, pareto: bool
) -> schema.LeaderboardRow:
    candidate, final = standing.candidate, _final(standing.candidate)
    # Published and recorded are two commands: between them the number is known to the registry only.
    published = published_version(state, found.id, candidate.id) if candidate.final else None
    return schema.LeaderboardRow(
        rank=standing.rank,
        candidate=candidate.id,
        dataset=unit.dataset,
        estimator=candidate.estimator,
        params=msgspec.json.decode(candidate.params, type=dict[str, Any]),
        state=_row_state(state, found, candidate),
        metric=unit.metric,
        cv_mean=standing.mean,
        cv_std=standing.std,
        folds=list(standing.scores),
        holdout=final.holdout,
        fit_seconds=standing.fit_seconds,
        predict_us_per_row=standing.predict_us_per_row,
        model_bytes=final.model_bytes or None,
        pareto=pareto,
        reason=candidate.reason or final.error,
        model=published.model if published is not None else None,
        version=published.version if published is not None else None,
    )


def _row_state(state: ClusterState, found: facts.Job, candidate: facts.Candidate) -> Any:
    if candidate.state is not CandidateState.PENDING:
        return candidate.state.value
    if found.state is not JobState.RUNNING:
        return "pending"
    here = any(epoch == state.epoch.number for epoch in candidate.running.values())
    return "running" if here or folds_done(candidate) else "pending"


# ---------------------------------------------------------------- models
def model(state: ClusterState, found: facts.Model) -> schema.Model:
    """Task, estimator and metrics are those of the version that `production` names, else of the newest."""
    shown = found.versions[found.aliases.get("production", found.latest)]
    detail = msgspec.json.decode(shown.detail, type=schema.VersionDetail)
    return schema.Model(
        name=found.name,
        latest=found.latest,
        versions=sorted(found.versions),
        aliases=dict(sorted(found.aliases.items())),
        task=msgspec.convert(shown.task, schema.Task),
        estimator=shown.estimator,
        metrics=detail.metrics,
    )


def model_version(state: ClusterState, found: facts.ModelVersion) -> schema.ModelVersion:
    detail = msgspec.json.decode(found.detail, type=schema.VersionDetail)
    return schema.ModelVersion(
        model=found.model,
        version=found.version,
        digest=found.digest,
        task=msgspec.convert(found.task, schema.Task),
        estimator=found.estimator,
        params=detail.params,
        signature=detail.signature,
        metrics=detail.metrics,
        dataset=detail.dataset,
        job=found.job,
        candidate=found.candidate,
        engine="onnx" if found.engine == "onnx" else "sklearn",
        engine_reason=detail.engine_reason,
        libraries=detail.libraries,
        bytes=found.bytes,
        created_at=iso(found.created_at),
        holders=list(holders(state, found.digest)),
        aliases=list(aliases_of(state, found.model, found.version)),
    )


def alias_change(found: facts.Model, move: facts.AliasMove) -> schema.AliasChange:
    version = found.versions.get(move.version)
    metrics = msgspec.json.decode(version.detail, type=schema.VersionDetail).metrics if version is not None else {}
    return schema.AliasChange(
        alias=move.alias,
        version=move.version,
        previous=move.previous,
        at=iso(move.at),
        by=move.by,
        comment=move.comment,
        metrics=metrics,
    )


# ---------------------------------------------------------------- the rest
def token(found: facts.Token) -> schema.TokenRecord:
    return schema.TokenRecord(id=found.id, name=found.name, role=found.role.value, created_at=iso(found.created_at))


def audit(entry: facts.AuditEntry) -> schema.AuditRecord:
    return schema.AuditRecord(
        index=entry.index,
        at=iso(entry.at),
        actor=entry.actor,
        call=entry.command,
        object=entry.object,
        outcome=entry.outcome,
    )


def now_iso() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


NO_DETAIL = Json(b"{}")
