"""Builders of commands and of small states for the tests of the rules."""

import msgspec

from consensus.levels import stamped
from consensus.messages import (
    Accepted,
    AddDatasetVersion,
    BeginEpoch,
    Command,
    Entry,
    FinishUnit,
    FoldDone,
    FoldFailed,
    HeldBlob,
    JoinMember,
    NewCandidate,
    PublishVersion,
    RecordFolds,
    Rejected,
    StartFolds,
    SubmitJob,
)
from consensus.rules.machine import Applied, apply
from consensus.state import (
    Candidate,
    CandidateId,
    ClusterState,
    CommandId,
    Digest,
    Job,
    JobId,
    Json,
    Member,
    NodeId,
    Part,
    Unit,
)

A, B, C = (NodeId(letter * 32) for letter in "abc")
JOB = JobId("job-1")
FIRST, SECOND = CandidateId("0.1"), CandidateId("0.2")
EMPTY = Json(b"{}")


def digest(number: int) -> Digest:
    return Digest(f"{number:064x}")


def member(node: NodeId, **changes: object) -> Member:
    plain = Member(node, f"node-{node[0]}", ("10.0.0.1",), 7443, 7444, 8080, 2, "0.1", 0.0)
    return msgspec.structs.replace(plain, **changes)


def add(
    name: str = "iris", number: int = 1, holders: tuple[NodeId, ...] = (A,), target: str = "y"
) -> AddDatasetVersion:
    part = Part(digest(number), 10, 100)
    held = (HeldBlob(part.digest, 100, holders),)
    return AddDatasetVersion(name, digest(number + 500), 10, 120, (part,), target, "binary", EMPTY, held)


def unit(name: str = "iris", version: int = 1) -> Unit:
    return Unit(name, version, "y", "binary", "roc_auc", EMPTY)


def submit(job: JobId = JOB, units: tuple[Unit, ...] = (unit(),), candidates: int = 2, folds: int = 2) -> SubmitJob:
    """Each unit gets `candidates` candidates: `0.1`, `0.2`, ... `1.1`, ..."""
    made = tuple(
        NewCandidate(CandidateId(f"{number}.{n}"), number, "Ridge", EMPTY, n, folds)
        for number in range(len(units))
        for n in range(1, candidates + 1)
    )
    return SubmitJob(job, "a job", EMPTY, units, made)


def done(candidate: CandidateId, fold: int, score: float = 0.5) -> FoldDone:
    return FoldDone(candidate, fold, Json(msgspec.json.encode({"roc_auc": score})), 0.25, 1.5)


def fitted(candidate: CandidateId, epoch: int = 1, job: JobId = JOB, folds: int = 2) -> RecordFolds:
    return RecordFolds(epoch, job, tuple(done(candidate, fold) for fold in range(folds)))


def failed(candidate: CandidateId, fold: int = 0, epoch: int = 1, reason: str = "ValueError: no") -> RecordFolds:
    return RecordFolds(epoch, JOB, failed=(FoldFailed(candidate, fold, reason),))


def start(*folds: tuple[CandidateId, int], epoch: int = 1) -> StartFolds:
    return StartFolds(epoch, JOB, folds)


def publish(
    candidate: CandidateId = FIRST, number: int = 900, epoch: int = 1, model: str = "iris", move: bool = True
) -> PublishVersion:
    file = digest(number)
    held = HeldBlob(file, 700, (A,))
    return PublishVersion(
        epoch, JOB, candidate, model, file, 700, "binary", "Ridge", "sklearn", EMPTY, held, "production", move,
        Json(b'{"holdout":{}}'),
    )  # fmt: skip


def finish(number: int = 0, best: str = "", error: str = "", epoch: int = 1) -> FinishUnit:
    return FinishUnit(epoch, JOB, number, CandidateId(best), error)


BEGUN = (JoinMember(member(A)), JoinMember(member(B)), BeginEpoch(1, A))
"""Two members and an epoch."""
QUEUED = (*BEGUN, add(), submit())
RUNNING = (*QUEUED, start((FIRST, 0), (FIRST, 1), (SECOND, 0)))
FITTED = (*RUNNING, fitted(FIRST))
PUBLISHED = (*FITTED, publish())


class Cluster:
    """A state under a running index: each command gets the next one, its own id, and the second of its index."""

    def __init__(self, *commands: Command) -> None:
        self.state = ClusterState()
        self.log: list[tuple[int, Entry]] = []
        for command in commands:
            self.accept(command)

    def run(self, command: Command, command_id: str | None = None, actor: str = "ann") -> Applied:
        index = self.state.index + 1
        entry = stamped(CommandId(command_id or f"c{index}"), 1000.0 + index, actor, command)
        applied = apply(self.state, index, entry)
        self.log.append((index, entry))
        self.state = applied.state
        return applied

    def accept(self, command: Command, actor: str = "ann") -> Applied:
        applied = self.run(command, actor=actor)
        assert isinstance(applied.outcome, Accepted), applied.outcome
        return applied

    def reject(self, command: Command) -> Rejected:
        """Runs a command that must be refused and must change nothing but the books (index, audit, recent)."""
        before = self.state
        applied = self.run(command)
        assert isinstance(applied.outcome, Rejected), applied.outcome
        assert applied.events == ()
        assert facts(applied.state) == facts(before)
        return applied.outcome

    def value(self, command: Command) -> dict[str, object]:
        outcome = self.accept(command).outcome
        assert isinstance(outcome, Accepted)
        return msgspec.json.decode(outcome.value, type=dict[str, object])

    @property
    def job(self) -> Job:
        return self.state.jobs[JOB]

    def candidate(self, name: CandidateId = FIRST) -> Candidate:
        return self.job.candidates[name]


def facts(state: ClusterState) -> ClusterState:
    """The state without its books, for comparing."""
    bare = ClusterState()
    books = ("index", "audit", "audit_next", "recent", "recent_before")
    return msgspec.structs.replace(state, **{name: getattr(bare, name) for name in books})


def kinds(applied: Applied) -> list[str]:
    return [event.kind for event in applied.events]
