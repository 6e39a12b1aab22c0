"""What a trainer would commit: a job that ran, and the model that it published."""

import random

import msgspec
from msgspec.structs import replace

from consensus.messages import (
    AddCandidates,
    BeginEpoch,
    FinishUnit,
    FoldDone,
    FoldFailed,
    FoldTally,
    HeldBlob,
    JoinMember,
    PublishVersion,
    RaiseLevel,
    RecordFolds,
    StartFolds,
)
from consensus.state import CandidateId, Digest, JobId, Json
from parvada import schema
from tests.unit.node.http.world import World
from training.proposals import proposals
from training.results import FoldDetail, Row, encode_detail, encode_row, encode_segment


def flowers(rows: int = 60, seed: int = 0) -> str:
    """A CSV with two numbers, a category and a target of two classes."""
    draw = random.Random(seed)
    lines = ["length,width,colour,kind"]
    for number in range(rows):
        kind = ("rose", "tulip")[number % 2]
        lines.append(f"{draw.uniform(1, 9):.3f},{draw.uniform(1, 9):.3f},{draw.choice(['red', 'blue'])},{kind}")
    return "\n".join(lines) + "\n"


async def dataset(api: World, name: str, rows: int = 60, seed: int = 0) -> dict[str, object]:
    answer = await api.upload(name, flowers(rows, seed))
    assert answer.status == 201, answer.raw
    made: dict[str, object] = answer.json
    return made


async def submit(api: World, name: str, models: tuple[str, ...] = ("LogisticRegression", "GaussianNB")) -> JobId:
    answer = await api.call("POST", "/v1/jobs", json={"datasets": [name], "models": models, "cv": {"folds": 2}})
    assert answer.status == 202, answer.raw
    return JobId(answer.json["id"])


def _json(value: object) -> Json:
    return Json(msgspec.json.encode(value))


async def run(api: World, job: JobId, failing: str = "0.1") -> None:
    """The epoch's trainer finishes the job: candidate 0.0 is ok, `failing` fails, the model is published."""
    log, me = api.log, api.flock.first
    epoch = log.state.epoch.number + 1
    await log.propose(BeginEpoch(epoch, me.id), actor="test")
    best = CandidateId("0.0")
    await propose_candidates(api, job)
    await log.propose(StartFolds(epoch, job, ((best, 0), (best, 1), (CandidateId(failing), 0))), actor="trainer")
    failed = (FoldFailed(CandidateId(failing), 0, "ValueError: it did not converge"),)
    if log.state.jobs[job].units[0].tally is None:
        done = tuple(FoldDone(best, fold, _json({"roc_auc": 0.8 + fold / 10}), 0.5, 3.0) for fold in (0, 1))
        await log.propose(RecordFolds(epoch, job, done, failed), actor="trainer")
    else:
        await record(api, job, best, 0.8, 0.9, failed=failed)
    await publish(api, epoch, job, best)
    await log.propose(FinishUnit(epoch, job, 0, best), actor="trainer")


async def propose_candidates(api: World, job: JobId) -> None:
    """What the trainer does first with a tallied job."""
    for number, unit in enumerate(api.state.jobs[job].units):
        if unit.tally is not None and not unit.tally.complete:
            made = tuple(proposals(msgspec.json.decode(unit.detail, type=schema.UnitDetail), number))
            command = AddCandidates(api.state.epoch.number, job, number, 0, made, complete=True)
            await api.log.propose(command, actor="trainer")


async def record(
    api: World, job: JobId, candidate: CandidateId, *scores: float, failed: tuple[FoldFailed, ...] = ()
) -> None:
    """The folds of a candidate of a tallied job, with their segment."""
    epoch, rows, tallies = api.state.epoch.number, [], []
    for fold, score in enumerate(scores):
        detail = msgspec.Raw(encode_detail(FoldDetail({"roc_auc": score, "f1": score - 0.1})))
        rows.append(encode_row(Row(candidate, fold, epoch, score, 0.5, 3.0, detail)))
        tallies.append(FoldTally(candidate, fold, score, 0.5, 3.0))
    content = encode_segment(job, rows)
    digest = await api.flock.first.keep(content)
    segment = HeldBlob(digest, len(content), (api.flock.first.id,))
    command = RecordFolds(epoch, job, failed=failed, tallies=tuple(tallies), segment=segment)
    await api.log.propose(command, actor="trainer")


async def to_level(api: World, level: int) -> None:
    """All nodes are of a release that understands `level`, which is in force from now on."""
    for member in api.state.members.values():
        await api.log.propose(JoinMember(replace(member, level=level)), actor="test")
    await api.log.propose(RaiseLevel(level), actor="test")


async def publish(api: World, epoch: int, job: JobId, candidate: CandidateId) -> None:
    found = api.state.jobs[job]
    unit = found.units[0]
    content = f"the model of {job}".encode()
    digest: Digest = await api.flock.first.keep(content)
    version = api.state.datasets[unit.dataset].versions[unit.version]
    detail = schema.VersionDetail(
        params={"C": 1.0},
        signature=schema.Signature(
            inputs=[schema.InputField(name="length", type="number", required=True)],
            outputs=[schema.OutputField(name="predict", type="category", classes=["rose", "tulip"])],
        ),
        metrics={"roc_auc": 0.85},
        dataset=schema.DatasetVersionRef(name=unit.dataset, version=unit.version, digest=version.digest),
        libraries={"scikit-learn": "1.7.2"},
    )
    final = schema.FinalResult(holdout={"roc_auc": 0.85}, model_bytes=len(content), model=unit.dataset, version=1)
    await api.log.propose(
        PublishVersion(
            epoch=epoch,
            job=job,
            candidate=candidate,
            model=unit.dataset,
            digest=digest,
            bytes=len(content),
            task=unit.task,
            estimator="LogisticRegression",
            engine="sklearn",
            detail=_json(detail),
            blob=HeldBlob(digest, len(content), (api.flock.first.id,)),
            alias="production",
            move_alias=True,
            final=_json(final),
        ),
        actor="trainer",
    )


async def model(api: World, name: str, versions: int = 1) -> None:
    """A model with that many versions; `production` names the newest."""
    if name not in api.state.datasets:
        await dataset(api, name)
    for _ in range(versions):
        await run(api, await submit(api, name))
