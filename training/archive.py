"""The results file of a job that has ended: one Arrow file with a row for each candidate and a row for each fold.

Its first batches have the candidates, so that a leaderboard is read without a look at the folds. Made and read in
worker processes: Arrow is too heavy for the agent and for an idle trainer.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
from immutables import Map

from consensus.progress import by_unit, natural
from consensus.state import Candidate, CandidateId, CandidateState, Job, JobId, Json
from training.choice import ranked
from training.results import BadResults, BadSegment, FoldDetail, Sealed, decode_detail, decode_segment

KEPT_ROWS = 20
"""Candidates of each unit that stay in the replicated state, best first."""
KEPT_IN_ALL = 200
BATCH_ROWS = 256

_CURVE = pa.struct(
    [
        ("over", pa.string()),
        ("split", pa.string()),
        ("figure", pa.string()),
        ("x", pa.list_(pa.float64())),
        ("y", pa.list_(pa.float64())),
    ]
)
SCHEMA = pa.schema(
    [
        ("candidate", pa.string()),
        ("unit", pa.int32()),
        # Of candidates alone; `fold` is null there.
        ("estimator", pa.string()),
        ("params", pa.string()),
        ("seed", pa.int64()),
        ("folds_total", pa.int32()),
        ("state", pa.string()),
        ("reason", pa.string()),
        ("rung", pa.int32()),
        ("baseline", pa.bool_()),
        ("final", pa.string()),
        ("folds", pa.list_(pa.struct([("fold", pa.int32()), ("score", pa.float64())]))),
        # Of both: of a candidate the sums over its folds.
        ("fit_seconds", pa.float64()),
        ("predict_us_per_row", pa.float64()),
        # Of folds alone.
        ("fold", pa.int32()),
        ("epoch", pa.int32()),
        ("score", pa.float64()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("curves", pa.list_(_CURVE)),
        ("warnings", pa.list_(pa.string())),
    ]
)


# ---------------------------------------------------------------- writing
def seal(job: Job, segments: Sequence[str], earlier: str, path: str) -> Sealed:
    """Write the results file of an ended job to `path`. `segments`: paths of those that are to be had, oldest first;
    `earlier`: the path of the file that it was sealed with before it was tried again, or empty."""
    candidates = {candidate.id: tallied(candidate, job) for candidate in job.candidates.values()}
    taken, unreadable, folds = frozenset[CandidateId](), list[str](), 0
    if earlier:
        try:
            taken = _take_over(candidates, earlier)
        except BadResults as error:
            unreadable.append(str(error))
            earlier = ""
    ordered = sorted(candidates.values(), key=lambda candidate: natural(candidate.id))
    with pa.OSFile(path, "wb") as sink, pa.ipc.new_file(sink, SCHEMA, options=_options()) as writer:
        _write(writer, (_candidate_row(candidate) for candidate in ordered))
        for rows in _fold_rows(job, segments, earlier, candidates, unreadable):
            folds += len(rows)
            _write(writer, rows)
    done = sum(len(candidate.scores) for candidate in ordered)
    keep = tuple(name for name in best(job) if name not in taken)
    return Sealed(keep, len(ordered), folds, done - folds, tuple(unreadable))


def _take_over(candidates: dict[CandidateId, Candidate], earlier: str) -> frozenset[CandidateId]:
    """Add what only the file of before knows, and say of which candidates: a job that is cancelled again before it had
    its folds back knows less than that file, and none of them may be lost."""
    costs, before, taken = read_costs(earlier), read_candidates(earlier), set[CandidateId]()
    for archived in before:
        known = candidates.get(archived.id)
        missing = [fold for fold in sorted(archived.scores) if known is None or fold not in known.scores]
        if known is None or (missing and not known.scores):
            candidates[archived.id] = archived
        elif missing:
            scores = known.scores.update({fold: archived.scores[fold] for fold in missing})
            _, seconds, micros = zip(*(costs[archived.id, fold] for fold in missing), strict=True)
            candidates[archived.id] = msgspec.structs.replace(
                known,
                state=CandidateState.OK if len(scores) == known.folds_total else known.state,
                reason="" if len(scores) == known.folds_total else known.reason,
                scores=scores,
                fit_seconds=known.fit_seconds + sum(seconds),
                predict_us=known.predict_us + sum(micros),
            )
        if missing:
            taken.add(archived.id)
    return frozenset(taken)


def tallied(candidate: Candidate, job: Job) -> Candidate:
    """As a candidate of a tallied job has it, also of one that was kept whole."""
    if not candidate.folds:
        return candidate
    metric = job.units[candidate.unit].metric
    folds = [candidate.folds[fold] for fold in sorted(candidate.folds)]
    return msgspec.structs.replace(
        candidate,
        folds=Map(),
        scores=Map({result.fold: _whole_scores(result.scores).get(metric) for result in folds}),
        fit_seconds=sum(result.fit_seconds for result in folds),
        predict_us=sum(result.predict_us_per_row for result in folds),
    )


def best(job: Job) -> tuple[CandidateId, ...]:
    """Those that stay in the state: the best of each unit, and a small unit's all."""
    each = max(1, min(KEPT_ROWS, KEPT_IN_ALL // len(job.units)))
    found: list[CandidateId] = []
    for unit, mine in zip(job.units, by_unit(job), strict=True):
        found += [row.candidate.id for row in ranked(mine, unit.metric)[:each]]
    return tuple(found)


def _fold_rows(
    job: Job, segments: Sequence[str], earlier: str, candidates: Mapping[CandidateId, Candidate], unreadable: list[str]
) -> Iterator[list[dict[str, Any]]]:
    """The rows of finished folds, each once, in pieces that fit into memory. A segment that cannot be read is noted:
    waiting would not mend it."""
    seen: set[tuple[str, int]] = set()

    def fresh(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = []
        for row in rows:
            name, fold = row["candidate"], row["fold"]
            known = candidates.get(CandidateId(name))
            if known is None or fold not in known.scores or (name, fold) in seen:
                continue  # what a fold brought that counted only once, or for nothing
            seen.add((name, fold))
            kept.append({**row, "unit": known.unit, "score": known.scores[fold]})
        return kept

    if earlier:
        for batch in _batches(earlier, folds=True):
            yield fresh(batch.to_pylist())
    for segment in segments:
        try:
            found = list(_segment_rows(Path(segment), job.id))
        except BadSegment as error:
            unreadable.append(f"{segment}: {error}")
            continue
        yield fresh(found)
    for candidate in job.candidates.values():
        if candidate.folds:
            yield fresh(_whole_rows(candidate))


def _segment_rows(path: Path, job: JobId) -> Iterator[dict[str, Any]]:
    for row in decode_segment(path.read_bytes(), job):
        try:
            detail = decode_detail(row)
        except msgspec.MsgspecError as error:
            raise BadSegment(f"the detail of fold {row.fold} of {row.candidate} does not fit: {error}") from error
        yield _fold_row(row.candidate, row.fold, row.epoch, row.fit_seconds, row.predict_us_per_row, detail)


def _whole_rows(candidate: Candidate) -> Iterator[dict[str, Any]]:
    for fold, result in sorted(candidate.folds.items()):
        detail = FoldDetail({name: value for name, value in _whole_scores(result.scores).items() if value is not None})
        yield _fold_row(candidate.id, fold, result.epoch, result.fit_seconds, result.predict_us_per_row, detail)


def _fold_row(
    candidate: str, fold: int, epoch: int, fit_seconds: float, predict_us: float, detail: FoldDetail
) -> dict[str, Any]:
    return {
        "candidate": candidate,
        "fold": fold,
        "epoch": epoch,
        "fit_seconds": fit_seconds,
        "predict_us_per_row": predict_us,
        "scores": list(detail.scores.items()),
        "curves": [msgspec.structs.asdict(curve) for curve in detail.curves],
        "warnings": list(detail.warnings),
    }


def _candidate_row(candidate: Candidate) -> dict[str, Any]:
    return {
        "candidate": candidate.id,
        "unit": candidate.unit,
        "estimator": candidate.estimator,
        "params": candidate.params.decode(),
        "seed": candidate.seed,
        "folds_total": candidate.folds_total,
        "state": candidate.state.value,
        "reason": candidate.reason,
        "rung": candidate.rung,
        "baseline": candidate.baseline,
        "final": candidate.final.decode(),
        "folds": [{"fold": fold, "score": score} for fold, score in sorted(candidate.scores.items())],
        "fit_seconds": candidate.fit_seconds,
        "predict_us_per_row": candidate.predict_us,
    }


def _write(writer: Any, rows: Iterable[dict[str, Any]]) -> None:
    waiting: list[dict[str, Any]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == BATCH_ROWS:
            writer.write_batch(pa.RecordBatch.from_pylist(waiting, SCHEMA))
            waiting.clear()
    if waiting:
        writer.write_batch(pa.RecordBatch.from_pylist(waiting, SCHEMA))


def _options() -> Any:
    return pa.ipc.IpcWriteOptions(compression="zstd", use_threads=False)


def _whole_scores(scores: Json) -> dict[str, float | None]:
    return msgspec.json.decode(scores, type=dict[str, float | None])


# ---------------------------------------------------------------- reading
def read_candidates(path: str, first: int = 0, count: int | None = None) -> list[Candidate]:
    """Those from number `first` on in the file's order, `count` at most (a multiple of the rows of a batch): all
    candidates of the job, without their folds' details. Raises BadResults."""
    last = None if count is None else (first + count) // BATCH_ROWS
    batches = islice(_batches(path, folds=False), first // BATCH_ROWS, last)
    return [_candidate(row) for batch in batches for row in batch.to_pylist()]


def read_scores(path: str, candidate: CandidateId) -> dict[int, dict[str, float]]:
    """All metrics of the folds of a candidate."""
    return {
        row["fold"]: dict(row["scores"])
        for batch in _batches(path, folds=True)
        for row in batch.select(["candidate", "fold", "scores"]).to_pylist()
        if row["candidate"] == candidate
    }


def read_costs(path: str) -> dict[tuple[CandidateId, int], tuple[float | None, float, float]]:
    """Of each finished fold its score, its seconds of fitting and the microseconds that a row's prediction takes; of
    one of which only the tally is left an equal share of what its candidate took."""
    columns = ["candidate", "fold", "score", "fit_seconds", "predict_us_per_row"]
    found: dict[tuple[CandidateId, int], tuple[float | None, float, float]] = {
        (CandidateId(name), fold): (score, seconds, micros)
        for batch in _batches(path, folds=True)
        for name, fold, score, seconds, micros in zip(*(batch.column(c).to_pylist() for c in columns), strict=True)
    }
    for candidate in read_candidates(path):
        for fold, score in candidate.scores.items():
            each = len(candidate.scores)
            share = candidate.fit_seconds / each, candidate.predict_us / each
            found.setdefault((candidate.id, fold), (score, *share))
    return found


def _batches(path: str, *, folds: bool) -> Iterator[Any]:
    """Those of the folds, or those of the candidates, which come first. Raises BadResults, FileNotFoundError."""
    try:
        with pa.memory_map(path) as source, pa.ipc.open_file(source) as reader:
            if reader.schema != SCHEMA:
                raise BadResults(f"{path} has other columns than a results file")
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                batch.validate(full=True)
                of_folds = batch.num_rows > 0 and batch.column("fold").null_count == 0
                if of_folds and not folds:
                    return
                if of_folds == folds:
                    yield batch
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise BadResults(f"{path} cannot be read: {error}") from error


def _candidate(row: Mapping[str, Any]) -> Candidate:
    return Candidate(
        id=CandidateId(row["candidate"]),
        unit=row["unit"],
        estimator=row["estimator"],
        params=Json(row["params"].encode()),
        seed=row["seed"],
        folds_total=row["folds_total"],
        state=CandidateState(row["state"]),
        reason=row["reason"],
        final=Json(row["final"].encode()),
        scores=Map({fold["fold"]: fold["score"] for fold in row["folds"]}),
        fit_seconds=row["fit_seconds"],
        predict_us=row["predict_us_per_row"],
        rung=row["rung"],
        baseline=row["baseline"],
    )
