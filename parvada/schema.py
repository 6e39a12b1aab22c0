"""The one definition of the wire: what the HTTP API takes and gives, shared by handlers, clients and the TUI.

Names are fixed by the API contract. Times are ISO 8601 strings in UTC on the wire.
"""

from typing import Annotated, Any, Literal

import msgspec

from parvada.identifiers import NAME


def _within(low: float, high: float) -> msgspec.Meta:
    """What a value may be. Said by the schema and judged by whoever knows what to say of one that is not."""
    return msgspec.Meta(extra_json_schema={"minimum": low, "maximum": high})


Name = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": NAME})]
"""Of something new; judged as a range is."""
Scalar = str | int | float | bool | None
Task = Literal["binary", "multiclass", "regression", "multilabel"]
ColumnType = Literal["integer", "number", "boolean", "category", "text", "datetime"]


class Problem(msgspec.Struct, kw_only=True):
    """The body of every answer with a status of 400 or more."""

    error: str
    code: str
    details: dict[str, Any] = {}


# ---------------------------------------------------------------- cluster
class Blobs(msgspec.Struct, kw_only=True):
    held: int = 0
    owed: int = 0


class ModelLoad(msgspec.Struct, kw_only=True):
    """One model version on one node, or merged over nodes. Latencies in milliseconds, rate in requests per
    second over the last 10 s; counts since the node's start."""

    model: str
    version: int
    requests: int = 0
    errors: int = 0
    rows: int = 0
    rate: float = 0.0
    p50: float = 0.0
    p90: float = 0.0
    p95: float = 0.0
    p99: float = 0.0
    max: float = 0.0


class Drain(msgspec.Struct, kw_only=True):
    """How far a node that drains has come. It still votes where no other node can take its vote."""

    blobs: int
    """Held here, and not on as many other nodes as there should be copies."""
    votes: bool
    done: bool
    """No blob is left, and neither the leadership nor the head of the training is here."""


class Node(msgspec.Struct, kw_only=True):
    id: str
    name: str
    address: str
    api_port: int
    role: Literal["voter", "learner", "joining"]
    state: Literal["alive", "suspect", "dead", "draining"]
    leader: bool
    ray_head: bool
    version: str
    started_at: str | None = None
    last_seen: str | None = None
    cpus: int = 0
    """How many folds it may run at a time: its share of the machine's cores, or what `PARVADA_CPUS` says."""
    cpus_shared_with: list[str] = []
    """The other nodes on its machine that take work, with which it shares the cores."""
    cpu_percent: float | None = None
    """Of the whole machine or container, 0 to 100."""
    memory_bytes: int | None = None
    """Proportional set size of all the node's processes."""
    memory_total_bytes: int | None = None
    disk_free_bytes: int | None = None
    blobs: Blobs = msgspec.field(default_factory=Blobs)
    load: list[float] = []
    requests_per_second: float = 0.0
    drain: Drain | None = None
    """Of a node that drains."""


class Ray(msgspec.Struct, kw_only=True):
    epoch: int
    state: Literal["starting", "up", "down"]
    head: str | None
    address: str | None
    nodes: list[str] = []
    cpus: float = 0.0
    cpus_used: float = 0.0
    mode: Literal["ray", "inline"] = "ray"


class Alarm(msgspec.Struct, kw_only=True):
    code: str
    since: str
    message: str


class Cluster(msgspec.Struct, kw_only=True):
    cluster_id: str
    name: str
    leader: str | None
    term: int
    level: int = 1
    """Of the code, understood by all members: it rises by itself once the last of them runs a newer release."""
    commit_index: int
    applied_index: int
    quorum: bool
    voters: list[str]
    learners: list[str]
    ray: Ray
    nodes: list[Node]
    alarms: list[Alarm] = []
    formation: str = ""
    """How the cluster was formed: `volume`, `expect`, `development`, or `joined`."""


class EventRecord(msgspec.Struct, kw_only=True):
    index: int
    at: str
    kind: str
    subject: str
    detail: dict[str, Any] = {}


class AuditRecord(msgspec.Struct, kw_only=True):
    index: int
    at: str
    actor: str
    call: str
    object: str
    outcome: str


class Stats(msgspec.Struct, kw_only=True):
    models: list[ModelLoad]
    nodes: list[Node]


# ---------------------------------------------------------------- datasets
class Reading(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """How the text of a value is read. Decided once, when the dataset is made, and kept with its columns and with the
    signature of every model: the same text then means the same in training and in a request of whatever format. What
    an empty `Reading` says is the rule for most columns of a text file. The functions are in `parvada.texts`."""

    typed: bool = False
    """The values came with a type (Parquet, Arrow, JSON strings), and were not texts whose meaning was found out."""
    trim: bool = True
    """White space around the value means nothing."""
    missing: tuple[str, ...] | None = None
    """The texts that stand for a missing value, the empty one besides. None: those of `parvada.texts.MISSING`."""
    told: tuple[str, ...] = ()
    """Those of `missing` that the uploader named: what of them is a number, as -999, stands for one as a number too."""
    decimal: Literal[".", ","] = "."
    grouping: str = ""
    """What separates thousands: nothing, a comma, a dot, a space (of any width) or an apostrophe."""
    unit: str = ""
    """A percent or currency sign that every number of the column carries; the value is the number beside it."""
    date: str = ""
    """The format of dates, as `datetime.strptime` takes it; empty: ISO 8601."""
    mixed: bool = False
    """Numbers and booleans stand among the strings of a JSON column: each counts as the text that JSON has for it."""


class Column(msgspec.Struct, kw_only=True, omit_defaults=True):
    name: str
    type: ColumnType
    nullable: bool
    missing: int
    distinct: int
    categories: list[Scalar] | None = None
    """For `category` and `boolean` columns, at most 1,000, sorted."""
    min: float | str | None = None
    max: float | str | None = None
    mean: float | None = None
    std: float | None = None
    reading: Reading | None = None
    """None: made before there was such a rule."""
    smallest: int | None = None
    """Rows of the rarest value. This and the next two where the values could be classes: at most 1,000, no fractions.
    They are not known of data sets that were made before they were kept."""
    rarest: Scalar = None
    """That value; of several the first in the file, of a long text its beginning."""
    largest: int | None = None
    """Rows of the most frequent value."""


class Note(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Something that had to be guessed, or that is remarkable, about the data. `line` and `value` are those of the
    first case, `count` says how many there are."""

    code: str
    message: str
    """A sentence that says it all."""
    column: str | None = None
    line: int | None = None
    value: str | None = None
    count: int | None = None


class DatasetDetail(msgspec.Struct, kw_only=True):
    """What the replicated state keeps of a dataset version beyond its key figures."""

    columns: list[Column]
    weight: str | None = None
    group: str | None = None
    dropped_rows: int = 0
    """Rows without a target value, left out at upload."""
    dropped_columns: list[str] = []
    source_format: str = "csv"
    smallest_class: int | None = None
    """Rows of the rarest target value; None for regression."""
    notes: list[Note] = []


class Dataset(msgspec.Struct, kw_only=True):
    name: str
    version: int
    digest: str
    rows: int
    bytes: int
    parts: int
    target: str
    task: Task
    columns: list[Column]
    created_at: str
    created_by: str
    holders: dict[str, list[str]]
    dropped_rows: int = 0
    weight: str | None = None
    group: str | None = None
    versions: list[int] = []
    notes: list[Note] = []


# ---------------------------------------------------------------- jobs
class DatasetRef(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    name: str
    version: int | None = None
    target: str | None = None
    drop: list[str] = []


class CandidateSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    estimator: str
    params: dict[str, Any] = {}
    search: dict[str, Any] = {}
    preprocess: dict[str, Any] = {}


class SearchSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    method: Literal["none", "grid", "random", "halving", "tpe"] = "none"
    trials: Annotated[int, _within(1, 1_000)] = 20


class CvSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    folds: Annotated[int, _within(2, 20)] = 5
    repeats: Annotated[int, _within(1, 10)] = 1
    holdout: Annotated[float, _within(0, 0.5)] = 0.2


class LimitSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    fit_seconds: Annotated[float, _within(1, 86_400)] = 300.0
    job_seconds: Annotated[float, _within(1, 30 * 86_400)] = 3600.0
    fit_memory_mb: Annotated[int, _within(64, 1 << 20)] = 2048


class PublishSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    model: str = "{dataset}"
    alias: Name = "production"
    when: Literal["better", "always", "never"] = "better"


class JobSpec(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    datasets: Annotated[list[str | DatasetRef], msgspec.Meta(extra_json_schema={"minItems": 1})]
    name: str = ""
    order: Literal["parallel", "sequential"] = "parallel"
    models: Literal["default", "all"] | list[str | CandidateSpec] = "default"
    search: SearchSpec = msgspec.field(default_factory=SearchSpec)
    metric: str = "auto"
    cv: CvSpec = msgspec.field(default_factory=CvSpec)
    limits: LimitSpec = msgspec.field(default_factory=LimitSpec)
    seed: Annotated[int, _within(0, 2**32 - 1)] = 0
    publish: PublishSpec = msgspec.field(default_factory=PublishSpec)


class CandidateTemplate(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One entry of a job's models, resolved: the candidates that the trainer proposes for it follow from it alone."""

    estimator: str
    params: dict[str, Any] = {}
    """With our defaults, checked."""
    space: dict[str, Any] = {}
    """What is searched: lists of values, or ranges."""
    method: Literal["grid", "random"] = "grid"
    trials: int = 0
    seed: int = 0
    """Of the draws."""
    options: dict[str, Any] = {}
    """Of the preprocessing, as they stand among a candidate's parameters."""
    baseline: bool = False


class UnitDetail(msgspec.Struct, kw_only=True):
    """Settings of one dataset of a job, resolved when it was submitted."""

    drop: list[str] = []
    folds: int
    repeats: int
    holdout: float
    seed: int
    publish_model: str
    publish_alias: str
    publish_when: Literal["better", "always", "never"]
    weight: str | None = None
    group: str | None = None
    notes: list[str] = []
    """E.g. "folds reduced from 5 to 3: the dataset has 8 rows"."""
    templates: list[CandidateTemplate] = []
    """Of a tallied job."""


class FinalResult(msgspec.Struct, kw_only=True):
    """Outcome of the refit of a candidate on all training rows."""

    holdout: dict[str, float] = {}
    model_bytes: int = 0
    fit_seconds: float = 0.0
    model: str | None = None
    version: int | None = None
    error: str | None = None


class Progress(msgspec.Struct, kw_only=True):
    """Counts of fits: of each fold of each candidate. The `trials_…` are earlier names of the same four."""

    trials_total: int
    trials_done: int
    trials_failed: int
    trials_running: int
    fraction: float
    eta_seconds: float | None = None
    fits_total: int = 0
    fits_done: int = 0
    fits_failed: int = 0
    """Those that failed, or will never run because their candidate failed or was skipped."""
    fits_running: int = 0

    def __post_init__(self) -> None:
        """A node of an earlier release tells only the earlier names."""
        if not self.fits_total:
            self.fits_total, self.fits_done = self.trials_total, self.trials_done
            self.fits_failed, self.fits_running = self.trials_failed, self.trials_running


class UnitProgress(msgspec.Struct, kw_only=True):
    dataset: str
    version: int
    target: str
    task: Task
    metric: str
    state: Literal["queued", "running", "done", "failed"]
    progress: Progress
    best: str | None = None
    best_estimator: str | None = None
    best_score: float | None = None
    model: str | None = None
    model_version: int | None = None
    error: str | None = None
    notes: list[str] = []


class Job(msgspec.Struct, kw_only=True):
    id: str
    name: str
    state: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    spec: JobSpec
    progress: Progress
    per_dataset: list[UnitProgress]
    created_at: str
    started_at: str | None
    ended_at: str | None
    epochs: list[int]
    resumed: int
    created_by: str = ""
    error: str | None = None
    sealed: bool = False
    """It has ended, and its results are in one file."""


class JobPage(msgspec.Struct, kw_only=True):
    """Some of the jobs, newest first. `notes` of their datasets are those of the submission alone."""

    jobs: list[Job]
    next: str | None = None
    """What to give as `after` for those that come next; None at the end."""


class LeaderboardRow(msgspec.Struct, kw_only=True):
    rank: int | None
    candidate: str
    dataset: str
    estimator: str
    params: dict[str, Any]
    state: Literal["ok", "failed", "skipped", "running", "pending"]
    metric: str
    cv_mean: float | None = None
    cv_std: float | None = None
    folds: list[float] = []
    holdout: dict[str, float] = {}
    fit_seconds: float | None = None
    predict_us_per_row: float | None = None
    model_bytes: int | None = None
    pareto: bool = False
    reason: str | None = None
    model: str | None = None
    version: int | None = None


class LiveSeries(msgspec.Struct, kw_only=True):
    """Columns of equal length, one value an iteration; where there were too many, some are left out."""

    split: str
    """train or validation."""
    metric: str
    iteration: list[int]
    value: list[float | None]
    seconds: list[float]
    """Since the fit began."""


class LiveFit(msgspec.Struct, kw_only=True):
    candidate: str
    fold: int | None
    """None: it is being fitted on all rows."""
    series: list[LiveSeries]


class LiveJob(msgspec.Struct, kw_only=True):
    """The fits of a job that run now and tell how far they are."""

    job: str
    epoch: int
    fits: list[LiveFit]


class Leaderboard(msgspec.Struct, kw_only=True):
    job: str
    rows: list[LeaderboardRow]
    notes: list[str] = []
    """About the data, and what was chosen or left undone because of them."""


# ---------------------------------------------------------------- models
class InputField(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One input column. `categories` only for required booleans and for information elsewhere: an unseen
    category of a `category` column is accepted."""

    name: str
    type: ColumnType
    required: bool
    categories: list[Scalar] | None = None
    reading: Reading | None = None
    """As the dataset has it, from which the model was trained. None: made before there was such a rule."""


class OutputField(msgspec.Struct, kw_only=True, omit_defaults=True):
    name: str
    """`predict`, `predict_proba` or `decision_function`."""
    type: ColumnType
    classes: list[Scalar] | None = None


class Signature(msgspec.Struct, kw_only=True):
    inputs: list[InputField]
    outputs: list[OutputField]
    ignored: list[str] = []
    """Columns that a request may have and the model does not use: those of its data set that were no inputs."""


class DatasetVersionRef(msgspec.Struct, kw_only=True):
    name: str
    version: int
    digest: str


class VersionDetail(msgspec.Struct, kw_only=True):
    """What the replicated state keeps of a model version beyond its key figures."""

    params: dict[str, Any]
    signature: Signature
    metrics: dict[str, float]
    dataset: DatasetVersionRef
    libraries: dict[str, str]
    engine_reason: str = ""


class ModelVersion(msgspec.Struct, kw_only=True):
    model: str
    version: int
    digest: str
    task: Task
    estimator: str
    params: dict[str, Any]
    signature: Signature
    metrics: dict[str, float]
    dataset: DatasetVersionRef
    job: str
    candidate: str
    engine: Literal["onnx", "sklearn"]
    engine_reason: str
    libraries: dict[str, str]
    bytes: int
    created_at: str
    holders: list[str]
    aliases: list[str]


class Model(msgspec.Struct, kw_only=True):
    name: str
    latest: int
    versions: list[int]
    aliases: dict[str, int]
    task: Task
    estimator: str
    metrics: dict[str, float]


class AliasRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    version: int
    comment: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    expected: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None = None
    """The version that the alias must name now; 0: none."""


class AliasMoved(msgspec.Struct, kw_only=True):
    """The answer to a move or rollback of an alias. Version 0 stands for "none"."""

    alias: str
    version: int
    previous: int


class AliasChange(msgspec.Struct, kw_only=True):
    alias: str
    version: int
    previous: int
    at: str
    by: str
    comment: str
    metrics: dict[str, float] = {}


class TransferRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    to: str | None = None


class ExcuseRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    node: str
    """Id or name."""


class RotationNode(msgspec.Struct, kw_only=True):
    id: str
    name: str
    state: Literal["alive", "suspect", "dead", "draining"]
    done: bool
    """It has done what the present phase asks."""
    excused: bool
    """The rotation went on without it: it needs the new secret by hand."""


class SecretRotation(msgspec.Struct, kw_only=True):
    """`generation` counts the secrets that were ever settled on."""

    generation: int
    phase: Literal["settled", "prepare", "present", "retire"]
    since: str | None = None
    """When the rotation began, or the last one was finished."""
    nodes: list[RotationNode] = []


Role = Literal["viewer", "predictor", "operator", "admin"]
"""What a token may do; each includes those before it."""


class TokenRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    name: Name
    role: Role


class TokenRecord(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`token` (the secret text) is given once, in the answer to its creation."""

    id: str
    name: str
    role: str
    created_at: str
    token: str | None = None


class PredictResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    predictions: list[Any]
    model: str
    version: int
    engine: str
    probabilities: list[dict[str, float]] | None = None


class PredictRows(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Rows to predict, each an object by column; a column left out, or null, is a missing value."""

    rows: Annotated[list[dict[str, Any]], msgspec.Meta(min_length=1)]


class PredictTable(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Rows to predict, each a list in the order of `columns`."""

    columns: list[str]
    data: Annotated[list[list[Any]], msgspec.Meta(min_length=1)]


# ---------------------------------------------------------------- small answers
class Health(msgspec.Struct, kw_only=True):
    status: Literal["ok", "ready"]


class DatasetList(msgspec.Struct, kw_only=True):
    datasets: list[Dataset]


class Preview(msgspec.Struct, kw_only=True):
    """The first rows of a dataset version."""

    columns: list[str]
    rows: list[dict[str, Any]]


class DatasetDeleted(msgspec.Struct, kw_only=True):
    name: str
    deleted: bool = True


class JobDeleted(msgspec.Struct, kw_only=True):
    id: str
    deleted: bool = True


class ModelList(msgspec.Struct, kw_only=True):
    models: list[Model]


class VersionList(msgspec.Struct, kw_only=True):
    versions: list[ModelVersion]


class AliasDropped(msgspec.Struct, kw_only=True):
    alias: str
    dropped: bool = True


class AliasHistory(msgspec.Struct, kw_only=True):
    alias: str
    history: list[AliasChange]


class Leader(msgspec.Struct, kw_only=True):
    leader: str | None


class AuditLog(msgspec.Struct, kw_only=True):
    entries: list[AuditRecord]


class NodeRemoved(msgspec.Struct, kw_only=True):
    id: str
    removed: bool = True


class TokenList(msgspec.Struct, kw_only=True):
    tokens: list[TokenRecord]


class TokenRevoked(msgspec.Struct, kw_only=True):
    id: str
    revoked: bool = True
