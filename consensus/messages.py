"""Every entry of the log and every event that applying one can emit, as tagged frozen structs.

Commands are imperative, events past tense. An `Entry` carries what makes a command exactly-once and
deterministic: its id, its time and who asked. Results of effects carry the epoch in which they were made.
"""

import msgspec

from consensus.state import (
    CandidateId,
    CommandId,
    Digest,
    JobId,
    JobState,
    Json,
    Member,
    MemberStatus,
    NodeId,
    Part,
    Role,
    RotationPhase,
    Unit,
)

TALLIED_FROM = 2
"""The level from which on jobs are tallied, sealed and deleted."""


class _Command(msgspec.Struct, frozen=True, tag=True):
    pass


# ---------------------------------------------------------------- cluster and members
class NameCluster(_Command, frozen=True, tag=True):
    """The genesis node's first command."""

    cluster_id: str
    name: str
    formation: str = ""
    """What entitled it to form (`discovery.formation.How`)."""


class Dissolve(_Command, frozen=True, tag=True):
    """The cluster ends in favour of `into`, the id of another one under the same secret: its nodes join that. Rejected
    unless this one is `members.dissolvable`; all that comes after it is rejected, too."""

    into: str


class JoinMember(_Command, frozen=True, tag=True):
    """Registers a node, or its new addresses; also brings a member that was away back to `active`."""

    member: Member


class SetMemberStatus(_Command, frozen=True, tag=True):
    node: NodeId
    status: MemberStatus


class RemoveMember(_Command, frozen=True, tag=True):
    """Leaves for good: the id is revoked and never accepted again."""

    node: NodeId


class RaiseLevel(_Command, frozen=True, tag=True):
    """From here on commands may need `level`. Rejected while a member does not understand it."""

    level: int


# ---------------------------------------------------------------- epochs
class BeginEpoch(_Command, frozen=True, tag=True):
    """`number` must be the current one plus one, `head` a member: else the command is rejected."""

    number: int
    head: NodeId


class AnnounceHead(_Command, frozen=True, tag=True):
    number: int
    address: str


# ---------------------------------------------------------------- blobs and datasets
class HeldBlob(msgspec.Struct, frozen=True):
    digest: Digest
    bytes: int
    holders: tuple[NodeId, ...]


class HoldBlobs(_Command, frozen=True, tag=True):
    """`node` has these blobs durable. Digests that nobody refers to are ignored."""

    node: NodeId
    digests: tuple[Digest, ...]


class DropBlobs(_Command, frozen=True, tag=True):
    """`node` no longer has these blobs."""

    node: NodeId
    digests: tuple[Digest, ...]


class AddDatasetVersion(_Command, frozen=True, tag=True):
    """A new version; the machine gives the number. The newest version with the same digest, target and
    task is returned instead of a copy (`value.created` tells)."""

    name: str
    digest: str
    rows: int
    bytes: int
    parts: tuple[Part, ...]
    target: str
    task: str
    detail: Json
    blobs: tuple[HeldBlob, ...]


class DeleteDataset(_Command, frozen=True, tag=True):
    """Rejected with `in_use` while a queued or running job refers to it."""

    name: str


# ---------------------------------------------------------------- jobs
class NewCandidate(msgspec.Struct, frozen=True, omit_defaults=True):
    id: CandidateId
    unit: int
    estimator: str
    params: Json
    seed: int
    folds_total: int
    baseline: bool = False


class SubmitJob(_Command, frozen=True, tag=True):
    """With candidates the job is kept whole. Without any (level 2) it is tallied: its units bring their tallies, and
    the trainer proposes the candidates."""

    job: JobId
    name: str
    spec: Json
    units: tuple[Unit, ...]
    candidates: tuple[NewCandidate, ...]


class AddCandidates(_Command, frozen=True, tag=True):
    """The next candidates of a unit of a tallied job. `first` is the number of the first of them; those that are there
    already change nothing. `complete` says that no more will follow."""

    epoch: int
    job: JobId
    unit: int
    first: int
    candidates: tuple[NewCandidate, ...]
    complete: bool
    rung: int = 0


class StartFolds(_Command, frozen=True, tag=True):
    """Folds about to run in this epoch; the job becomes `running`. Finished folds are left out silently."""

    epoch: int
    job: JobId
    folds: tuple[tuple[CandidateId, int], ...]


class FoldDone(msgspec.Struct, frozen=True):
    candidate: CandidateId
    fold: int
    scores: Json
    fit_seconds: float
    predict_us_per_row: float


class FoldFailed(msgspec.Struct, frozen=True):
    candidate: CandidateId
    fold: int
    reason: str


class FoldTally(msgspec.Struct, frozen=True, array_like=True):
    """What the state keeps of a finished fold of a tallied job; `score` is None where the metric is not defined."""

    candidate: CandidateId
    fold: int
    score: float | None
    fit_seconds: float
    predict_us_per_row: float


class RecordFolds(_Command, frozen=True, tag=True, omit_defaults=True):
    """Results of folds, in small batches. A failed fold fails its candidate; results of another epoch than
    the current one, and of folds already finished, change nothing. A tallied job takes `tallies` for `done` (level 2):
    all else that the folds brought is in `segment`, which holds what those that it `replaces` held, too."""

    epoch: int
    job: JobId
    done: tuple[FoldDone, ...] = ()
    failed: tuple[FoldFailed, ...] = ()
    tallies: tuple[FoldTally, ...] = ()
    segment: HeldBlob | None = None
    replaces: tuple[Digest, ...] = ()


class RecordFinal(_Command, frozen=True, tag=True):
    """Outcome of the refit of a candidate on all training rows: `final` is a `schema.FinalResult`."""

    epoch: int
    job: JobId
    candidate: CandidateId
    final: Json


class PublishVersion(_Command, frozen=True, tag=True):
    """A refitted candidate becomes a version of `model`; the machine gives the number. `alias` moves to it when
    `move_alias` (decided by the trainer from the metrics of the alias's present version). The same job and
    candidate published twice yields the first version again."""

    epoch: int
    job: JobId
    candidate: CandidateId
    model: str
    digest: Digest
    bytes: int
    task: str
    estimator: str
    engine: str
    detail: Json
    blob: HeldBlob
    alias: str
    move_alias: bool
    final: Json


class FinishUnit(_Command, frozen=True, tag=True):
    """The unit needs no more work. The job ends by itself when all its units are done: `succeeded` when at least
    one unit has a best candidate, else `failed`."""

    epoch: int
    job: JobId
    unit: int
    best: CandidateId
    error: str = ""


class CancelJob(_Command, frozen=True, tag=True):
    job: JobId


class RetryJob(_Command, frozen=True, tag=True):
    """A failed or cancelled job goes on: failed candidates become pending again, finished folds stay."""

    job: JobId


class SealJob(_Command, frozen=True, tag=True):
    """All that a job has found out is in `results`: its segments go, and all candidates but those to `keep` and those
    that it ended with. Rejected unless it ended at `ended_at`: it may have been tried again since the file was made."""

    job: JobId
    ended_at: float
    results: HeldBlob
    keep: tuple[CandidateId, ...]


class DeleteJob(_Command, frozen=True, tag=True):
    """Rejected with `in_use` while the job is queued or running. Models that it made stay."""

    job: JobId


# ---------------------------------------------------------------- models
class MoveAlias(_Command, frozen=True, tag=True):
    """`expected` (compare and set): the version that the alias must name now; None = do not compare, 0 = no alias."""

    model: str
    alias: str
    version: int
    comment: str = ""
    expected: int | None = None


class DropAlias(_Command, frozen=True, tag=True):
    model: str
    alias: str


class RollBackAlias(_Command, frozen=True, tag=True):
    """Back to the version that the alias named before its last move."""

    model: str
    alias: str


# ---------------------------------------------------------------- access
class CreateToken(_Command, frozen=True, tag=True):
    token: str
    name: str
    role: Role
    sha256: str


class RevokeToken(_Command, frozen=True, tag=True):
    token: str


class BeginRotation(_Command, frozen=True, tag=True):
    """A new cluster secret is to come: `source` has it durably, of it only the digest is here. `generation` must be the
    present one plus one."""

    generation: int
    digest: str
    source: NodeId


class ConfirmRotation(_Command, frozen=True, tag=True):
    """`node` has done what `phase` asks, for the secret with this digest."""

    node: NodeId
    digest: str
    phase: RotationPhase


class ExcuseNode(_Command, frozen=True, tag=True):
    """The rotation no longer waits for `node`."""

    node: NodeId


class AbandonRotation(_Command, frozen=True, tag=True):
    """Back to the old secret. Rejected once the new one is presented."""


class Barrier(_Command, frozen=True, tag=True):
    """Changes nothing: a linearizable read waits for its own."""


Command = (
    NameCluster
    | Dissolve
    | JoinMember
    | SetMemberStatus
    | RemoveMember
    | RaiseLevel
    | BeginEpoch
    | AnnounceHead
    | HoldBlobs
    | DropBlobs
    | AddDatasetVersion
    | DeleteDataset
    | SubmitJob
    | AddCandidates
    | StartFolds
    | RecordFolds
    | RecordFinal
    | PublishVersion
    | FinishUnit
    | CancelJob
    | RetryJob
    | SealJob
    | DeleteJob
    | MoveAlias
    | DropAlias
    | RollBackAlias
    | CreateToken
    | RevokeToken
    | BeginRotation
    | ConfirmRotation
    | ExcuseNode
    | AbandonRotation
    | Barrier
)


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the log holds: a command, its id (a retry keeps it), its time (seconds since 1970), who asked, and the level
    of the code that it needs."""

    id: CommandId
    time: float
    actor: str
    command: Command
    level: int = 1


# ---------------------------------------------------------------- outcomes and events
class Accepted(msgspec.Struct, frozen=True, tag=True):
    """`value` is a small JSON object, e.g. `{"version": 3, "created": true}`; empty bytes for none."""

    value: Json = Json(b"")


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """`code` is one of: not_found, conflict, stale_epoch, invalid, in_use, revoked, dissolved. Nothing was changed."""

    code: str
    reason: str


Outcome = Accepted | Rejected


class Event(msgspec.Struct, frozen=True):
    """Something that happened, for the event stream. `kind` is dotted and past tense: `cluster.named`,
    `cluster.level_raised`, `cluster.dissolved`, `member.joined`, `member.updated` (addresses), `member.status`,
    `member.removed`, `epoch.begun`, `epoch.announced`, `dataset.added`, `dataset.deleted`, `job.submitted`,
    `job.candidates_added`, `job.started`, `job.resumed`, `job.folds_recorded`, `job.unit_finished`, `job.ended`,
    `job.cancelled`, `job.retried`, `job.sealed`, `job.deleted`, `model.published`, `alias.moved`, `alias.dropped`,
    `token.created`, `token.revoked`, `secret.rotating` (each phase), `secret.rotated`, `secret.rotation_abandoned`,
    `secret.node_excused`. `subject` is the object's name or id; `detail` a small JSON object."""

    index: int
    at: float
    kind: str
    subject: str
    detail: Json = Json(b"{}")


class JobEnded(msgspec.Struct, frozen=True):
    """Detail of `job.ended`."""

    state: JobState
    error: str
