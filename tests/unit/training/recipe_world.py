"""A job with real settings on a dataset with columns of every kind, in the real state machine."""

from typing import Any

import msgspec

from consensus.messages import FoldDone, HeldBlob, NewCandidate, PublishVersion, RecordFolds, StartFolds, SubmitJob
from consensus.state import CandidateId, Json, Unit
from parvada.schema import (
    Column,
    DatasetDetail,
    DatasetVersionRef,
    FinalResult,
    JobSpec,
    LimitSpec,
    Signature,
    UnitDetail,
    VersionDetail,
)
from tests.unit.consensus.facts import BEGUN, JOB, A, Cluster, add, digest

FIRST, SECOND = CandidateId("0.0"), CandidateId("0.1")
MANY = [f"word-{number:03}" for number in range(300)]
COLUMNS = [
    Column(name="height", type="number", nullable=False, missing=0, distinct=90),
    Column(name="count", type="integer", nullable=True, missing=3, distinct=9),
    Column(name="colour", type="category", nullable=True, missing=1, distinct=3, categories=["blue", "green", "red"]),
    Column(name="word", type="category", nullable=False, missing=0, distinct=300, categories=list(MANY)),
    Column(name="ok", type="boolean", nullable=False, missing=0, distinct=2, categories=[False, True]),
    Column(name="none", type="category", nullable=True, missing=10, distinct=0, categories=[]),
    Column(name="note", type="text", nullable=False, missing=0, distinct=90),
    Column(name="when", type="datetime", nullable=False, missing=0, distinct=90),
    Column(name="y", type="category", nullable=False, missing=0, distinct=2, categories=["no", "yes"]),
]


def encoded(value: object) -> Json:
    return Json(msgspec.json.encode(value))


def detail(**changes: Any) -> UnitDetail:
    plain = UnitDetail(
        folds=3, repeats=2, holdout=0.25, seed=11, publish_model="flowers", publish_alias="production",
        publish_when="better",
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def unit(metric: str = "roc_auc", task: str = "binary", rule: UnitDetail | None = None) -> Unit:
    return Unit("iris", 1, "y", task, metric, encoded(rule or detail()))


def cluster(
    given: Unit | None = None,
    params: Any = None,
    limits: LimitSpec | None = None,
    estimators: tuple[str, str] = ("SVC", "SVC"),
) -> Cluster:
    """A job of one unit with two candidates of two folds, whose folds are started."""
    dataset = msgspec.structs.replace(add(), detail=encoded(DatasetDetail(columns=COLUMNS)))
    made = tuple(
        NewCandidate(CandidateId(f"0.{number}"), 0, name, encoded(params or {}), 40 + number, 2)
        for number, name in enumerate(estimators)
    )
    spec = JobSpec(datasets=["iris"], limits=limits or LimitSpec())
    return Cluster(
        *BEGUN,
        dataset,
        SubmitJob(JOB, "", encoded(spec), (given or unit(),), made),
        StartFolds(1, JOB, tuple((candidate.id, fold) for candidate in made for fold in range(2))),
    )


def recorded(world: Cluster, *scores: dict[str, float], candidate: CandidateId = FIRST) -> None:
    done = tuple(FoldDone(candidate, fold, encoded(found), 0.5, 2.0) for fold, found in enumerate(scores))
    world.accept(RecordFolds(1, JOB, done))


def published(
    world: Cluster, candidate: CandidateId, metrics: dict[str, float], task: str = "binary", *, move: bool = True
) -> None:
    """The next version of `flowers`, from a candidate whose folds are finished."""
    text = VersionDetail(
        params={},
        signature=Signature(inputs=[], outputs=[]),
        metrics=metrics,
        dataset=DatasetVersionRef(name="iris", version=1, digest="d"),
        libraries={},
    )
    file = digest(900 + len(world.log))
    world.accept(
        PublishVersion(
            epoch=1,
            job=JOB,
            candidate=candidate,
            model="flowers",
            digest=file,
            bytes=700,
            task=task,
            estimator=world.state.jobs[JOB].candidates[candidate].estimator,
            engine="sklearn",
            detail=encoded(text),
            blob=HeldBlob(file, 700, (A,)),
            alias="production",
            move_alias=move,
            final=encoded(FinalResult()),
        )
    )
