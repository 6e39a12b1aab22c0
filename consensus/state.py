"""Ids and the frozen structs that make up `ClusterState`: what every node knows. No behaviour lives here.

Mappings are persistent (`immutables.Map`), so a state is a value: `apply` shares all that it does not change,
and a reader in another thread keeps a consistent snapshot without a lock. What the rules never look into
(specs, columns, signatures, metrics) is kept as the bytes of its JSON (`parvada.schema` defines them).
"""

from enum import StrEnum
from typing import NewType

import msgspec
from immutables import Map

NodeId = NewType("NodeId", str)
"""32 hexadecimal digits: the hash of the node's own long-lived public key."""
Digest = NewType("Digest", str)
"""64 hexadecimal digits: SHA-256 of a blob's bytes."""
JobId = NewType("JobId", str)
CandidateId = NewType("CandidateId", str)
"""Unique within its job: `{unit}.{number}`."""
CommandId = NewType("CommandId", str)
Json = NewType("Json", bytes)
"""UTF-8 JSON of a struct of `parvada.schema`, opaque to the rules."""


class MemberStatus(StrEnum):
    """Whether a member takes part in placement and training."""

    ACTIVE = "active"
    DRAINING = "draining"
    AWAY = "away"
    """Stopped, or unseen for so long that its share of blobs has moved."""


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CandidateState(StrEnum):
    PENDING = "pending"
    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


class Role(StrEnum):
    """What a token may do; each role includes those before it."""

    VIEWER = "viewer"
    PREDICTOR = "predictor"
    OPERATOR = "operator"
    ADMIN = "admin"


class Member(msgspec.Struct, frozen=True):
    """A node that belongs to the cluster, and where its peers reach it."""

    id: NodeId
    name: str
    addresses: tuple[str, ...]
    peer_port: int
    raft_port: int
    api_port: int
    cpus: int
    version: str
    joined_at: float
    status: MemberStatus = MemberStatus.ACTIVE
    level: int = 1
    """The highest level of the code that its release understands (`consensus.levels`)."""
    machine: str = ""
    """Names what `cpus` are the cores of: members of the same name share them (`consensus.shares`)."""
    cpus_given: bool = False
    """`cpus` is its operator's word, not what it found."""


class RotationPhase(StrEnum):
    """What a rotation of the cluster secret asks of every member."""

    SETTLED = "settled"
    """Nothing: none is under way."""
    PREPARE = "prepare"
    """Keep the new secret durably, and trust certificates of both."""
    PRESENT = "present"
    """Show certificates of the new secret, and still trust both."""
    RETIRE = "retire"
    """Trust the new secret alone, and keep the old one nowhere."""


class Rotation(msgspec.Struct, frozen=True):
    """Where the cluster secret stands. No secret is in here: a digest (64 hexadecimal digits) tells nothing of it."""

    generation: int = 1
    """How many secrets were ever settled on."""
    digest: str = ""
    """Of the secret that is settled; empty for the first, which no node had to confirm."""
    phase: RotationPhase = RotationPhase.SETTLED
    coming: str = ""
    """Of the secret that is to come, while one is."""
    source: NodeId = NodeId("")
    """Which node made it."""
    begun_at: float = 0.0
    """When the rotation began, or was finished."""
    confirmed: tuple[NodeId, ...] = ()
    """Members that have done what the phase asks."""
    excused: tuple[NodeId, ...] = ()
    """Members that the operator gave up waiting for."""


class Epoch(msgspec.Struct, frozen=True):
    """The fencing token of everything that Ray does. `address` is empty until the head has announced itself."""

    number: int = 0
    head: NodeId = NodeId("")
    address: str = ""
    begun_at: float = 0.0
    secret: str = ""
    """Digest of the cluster secret that its credentials are made of; empty for the first."""


class Blob(msgspec.Struct, frozen=True):
    bytes: int
    holders: tuple[NodeId, ...]


class Part(msgspec.Struct, frozen=True):
    """One Parquet file of a dataset version."""

    digest: Digest
    rows: int
    bytes: int


class DatasetVersion(msgspec.Struct, frozen=True):
    name: str
    version: int
    digest: str
    rows: int
    bytes: int
    parts: tuple[Part, ...]
    target: str
    task: str
    detail: Json
    """`schema.DatasetDetail`: columns, weight, group, dropped rows."""
    created_at: float
    created_by: str


class Dataset(msgspec.Struct, frozen=True):
    name: str
    versions: Map[int, DatasetVersion] = Map()
    latest: int = 0
    """Number of the newest version that was ever made; numbers are not used again."""


class FoldResult(msgspec.Struct, frozen=True):
    """One finished fold of a job that is kept whole (see `Job`). `scores` is a JSON object of metric name to value."""

    fold: int
    scores: Json
    fit_seconds: float
    predict_us_per_row: float
    epoch: int


class Candidate(msgspec.Struct, frozen=True):
    """One estimator with its parameters on one dataset of the job."""

    id: CandidateId
    unit: int
    estimator: str
    params: Json
    seed: int
    folds_total: int
    state: CandidateState = CandidateState.PENDING
    reason: str = ""
    folds: Map[int, FoldResult] = Map()
    """Finished folds of a job that is kept whole; empty in a tallied one."""
    running: Map[int, int] = Map()
    """Fold number to the epoch in which it was started; those of older epochs are lost."""
    final: Json = Json(b"")
    """`schema.FinalResult` once refitted: holdout metrics, bytes, model and version."""
    scores: Map[int, float | None] = Map()
    """Finished folds of a tallied job, each with its value of the unit's metric: None where it is not defined."""
    fit_seconds: float = 0.0
    """All finished folds of a tallied job together."""
    predict_us: float = 0.0
    """The same sum, of the microseconds that a row's prediction takes."""
    rung: int = 0
    """Which rung of a search it was proposed for."""
    baseline: bool = False
    """There to be beaten: it is the best only while there is no other."""


class Tally(msgspec.Struct, frozen=True):
    """How far a unit is: counts and sums that are kept up to date, so that nobody has to count. Those of folds are over
    all candidates of the unit."""

    expected: int
    """Candidates that will be proposed in all, as far as is known."""
    folds: int
    """Of each candidate."""
    greater_is_better: bool
    """Of the unit's metric."""
    proposed: int = 0
    """Candidates so far: they are numbered from 0, and their ids are `{unit}.{number}`."""
    complete: bool = False
    """No more will be proposed."""
    open: bytes = b""
    """Bit n, the least significant of each byte first: candidate n is pending."""
    done: int = 0
    failed: int = 0
    """Folds that will never run because their candidate failed."""
    skipped: int = 0
    fit_seconds: float = 0.0
    """All folds done together."""
    running: int = 0
    """Folds in flight in `epoch`."""
    epoch: int = 0
    """The last one in which a fold was started."""
    best: int = -1
    """Number of the candidate with the best mean score of all that are ok; -1 for none."""
    best_score: float | None = None


class Unit(msgspec.Struct, frozen=True):
    """One dataset of a job, pinned to a version, with the settings resolved for it."""

    dataset: str
    version: int
    target: str
    task: str
    metric: str
    detail: Json
    """`schema.UnitDetail`: dropped columns, folds, repeats, holdout, publish rule."""
    done: bool = False
    best: CandidateId = CandidateId("")
    error: str = ""
    tally: Tally | None = None
    """None in a job that is kept whole."""


class Job(msgspec.Struct, frozen=True):
    """What the log knows of a training job. One that was submitted while level 1 was in force is kept whole: each
    candidate has all metrics of its folds. All others are tallied: their candidates have what the scheduler and the
    leaderboard need; everything else is in segments, blobs that are the recorder's business. A sealed job, of either
    kind, has only its best candidates here, and all that was found out in one file."""

    id: JobId
    name: str
    state: JobState
    spec: Json
    """`schema.JobSpec` as it was submitted."""
    units: tuple[Unit, ...]
    candidates: Map[CandidateId, Candidate]
    created_at: float
    created_by: str
    started_at: float = 0.0
    ended_at: float = 0.0
    epochs: tuple[int, ...] = ()
    """Every epoch in which the job ran; more than one means that it was resumed."""
    error: str = ""
    segments: tuple[Digest, ...] = ()
    """Results of folds, oldest first (`training.results`)."""
    results: Digest = Digest("")
    """The file of a sealed job. It stays when the job is tried again: finished folds are taken from it."""
    sealed: bool = False


class ModelVersion(msgspec.Struct, frozen=True):
    model: str
    version: int
    digest: Digest
    bytes: int
    task: str
    estimator: str
    engine: str
    detail: Json
    """`schema.VersionDetail`: params, signature, metrics, dataset, libraries, engine reason."""
    job: JobId
    candidate: CandidateId
    created_at: float


class AliasMove(msgspec.Struct, frozen=True):
    """One entry of an alias's history. Version 0 stands for "none"."""

    alias: str
    version: int
    previous: int
    at: float
    by: str
    comment: str
    index: int


class Model(msgspec.Struct, frozen=True):
    name: str
    versions: Map[int, ModelVersion] = Map()
    latest: int = 0
    aliases: Map[str, int] = Map()
    history: tuple[AliasMove, ...] = ()


class Token(msgspec.Struct, frozen=True):
    """An API token: only the SHA-256 of its text is kept."""

    id: str
    name: str
    role: Role
    sha256: str
    created_at: float


class AuditEntry(msgspec.Struct, frozen=True):
    index: int
    at: float
    actor: str
    command: str
    object: str
    outcome: str


class Remembered(msgspec.Struct, frozen=True):
    """The outcome of a recent command, returned again when the same command id comes again."""

    index: int
    rejected: bool
    code: str
    value: Json


class ClusterState(msgspec.Struct, frozen=True):
    """All that is replicated. `index` is the log index of the last entry applied to it."""

    cluster_id: str = ""
    name: str = ""
    index: int = 0
    members: Map[NodeId, Member] = Map()
    revoked: Map[NodeId, float] = Map()
    epoch: Epoch = Epoch()
    datasets: Map[str, Dataset] = Map()
    retired: Map[str, int] = Map()
    """Names of deleted datasets to their last version number: numbers are not used again."""
    jobs: Map[JobId, Job] = Map()
    models: Map[str, Model] = Map()
    blobs: Map[Digest, Blob] = Map()
    tokens: Map[str, Token] = Map()
    audit: Map[int, AuditEntry] = Map()
    """Ring of the last `AUDIT_ENTRIES`, by a running number (see `audit_next`)."""
    audit_next: int = 0
    recent: Map[CommandId, Remembered] = Map()
    """Grows to `RECENT_COMMANDS`, then takes the place of `recent_before` (see `queries.remembered`): far cheaper than
    to forget one command with each new one, which every node of the cluster would have to do for every entry."""
    recent_before: Map[CommandId, Remembered] = Map()
    level: int = 1
    """The level in force: commands that need a higher one are refused. It never falls."""
    rotation: Rotation = Rotation()
    formation: str = ""
    """What entitled its genesis node to form it (`discovery.formation.How`); empty where that is not known."""
    dissolved: str = ""
    """The id of the cluster in favour of which this one has ended; empty while it lives."""
