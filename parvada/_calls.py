"""Every call of the API as a `Call`: path, query, body and the type of its answer. One function a call, no I/O."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast
from urllib.parse import quote

import msgspec

from parvada._body import Upload, predict_body, to_json
from parvada._events import CAUGHT_UP_SECONDS, STREAM_SILENCE
from parvada._protocol import Call, Request, Response, problem_of, read_json, read_list
from parvada.schema import (
    AliasChange,
    AliasMoved,
    AliasRequest,
    AuditRecord,
    CandidateSpec,
    Cluster,
    CvSpec,
    Dataset,
    DatasetRef,
    ExcuseRequest,
    Job,
    JobPage,
    JobSpec,
    Leaderboard,
    LimitSpec,
    Model,
    ModelVersion,
    PredictResponse,
    PublishSpec,
    SecretRotation,
    Stats,
    TokenRecord,
    TokenRequest,
    TransferRequest,
)

if TYPE_CHECKING:
    import pandas as pd

    Rows = Sequence[Mapping[str, Any]] | bytes | pd.DataFrame

PARSE_SECONDS = 900.0
"""How long a node may be silent after an upload's last byte: it parses, stores and replicates before it answers."""
MAX_PAGE = 1000
"""The most jobs that one answer lists."""
ENDED = frozenset({"succeeded", "failed", "cancelled"})
"""States in which a job stays."""


def _path(*parts: str | int) -> str:
    return "/" + "/".join(quote(str(part), safe="") for part in parts)


DownloadFormat = Literal["parquet", "csv"]


class UploadOptions(TypedDict, total=False):
    """What may be said of a file at upload; what is left out is found out."""

    target: str | None
    """Column to predict; by default the last one."""
    task: str | None
    weight: str | None
    group: str | None
    drop: Sequence[str]
    format: str | None
    types: Sequence[str]
    """`column:type`, as in `when:datetime[%d/%m/%Y]`."""
    missing: Sequence[str] | None
    """The texts that stand for a missing value, in the place of NA and its like."""
    decimal: str | None
    separator: str | None
    encoding: str | None
    header: str | None
    """`none`: the first line is data."""


def _query(**values: object) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in values.items() if value not in (None, "", ()))


def _get(*parts: str | int, query: tuple[tuple[str, str], ...] = ()) -> Request:
    return Request(method="GET", path=_path(*parts), query=query)


def _post(*parts: str | int, value: object = None) -> Request:
    body = b"" if value is None else to_json(value)
    return Request(method="POST", path=_path(*parts), body=body, write=True)


def _nothing(response: Response) -> None:
    if response.status >= 400:
        raise problem_of(response)


# ---------------------------------------------------------------- cluster
def status(*, linearizable: bool = False) -> Call[Cluster]:
    query = _query(consistency="linearizable" if linearizable else None)
    return Call(_get("v1", "cluster", query=query), lambda r: read_json(r, Cluster))


def ready() -> Call[bool]:
    return Call(_get("readyz"), lambda r: r.status < 400)


def stats() -> Call[Stats]:
    return Call(_get("v1", "stats"), lambda r: read_json(r, Stats))


def audit() -> Call[list[AuditRecord]]:
    return Call(_get("v1", "audit"), lambda r: read_list(r, AuditRecord, "entries"))


def drain(node: str) -> Call[None]:
    return Call(_post("v1", "nodes", node, "drain"), _nothing)


def undrain(node: str) -> Call[None]:
    return Call(_post("v1", "nodes", node, "undrain"), _nothing)


def remove_node(node: str, *, force: bool) -> Call[None]:
    query = _query(force="true" if force else None)
    return Call(Request(method="DELETE", path=_path("v1", "nodes", node), query=query, write=True), _nothing)


def transfer(to: str | None) -> Call[None]:
    return Call(_post("v1", "cluster", "transfer", value=TransferRequest(to=to)), _nothing)


def rotation() -> Call[SecretRotation]:
    return Call(_get("v1", "cluster", "secret"), lambda r: read_json(r, SecretRotation))


def rotate_secret() -> Call[SecretRotation]:
    return Call(_post("v1", "cluster", "secret", "rotate"), lambda r: read_json(r, SecretRotation))


def excuse_node(node: str) -> Call[SecretRotation]:
    request = _post("v1", "cluster", "secret", "excuse", value=ExcuseRequest(node=node))
    return Call(request, lambda r: read_json(r, SecretRotation))


def abandon_rotation() -> Call[SecretRotation]:
    return Call(_post("v1", "cluster", "secret", "abandon"), lambda r: read_json(r, SecretRotation))


# ---------------------------------------------------------------- datasets
def datasets() -> Call[list[Dataset]]:
    return Call(_get("v1", "datasets"), lambda r: read_list(r, Dataset, "datasets"))


def dataset(name: str, version: int | None) -> Call[Dataset]:
    parts = ("v1", "datasets", name) if version is None else ("v1", "datasets", name, "versions", version)
    return Call(_get(*parts), lambda r: read_json(r, Dataset))


def delete_dataset(name: str) -> Call[None]:
    return Call(Request(method="DELETE", path=_path("v1", "datasets", name), write=True), _nothing)


def upload(
    name: str,
    body: Upload,
    options: UploadOptions,
) -> Call[Dataset]:
    several = {"drop": options.get("drop"), "types": options.get("types"), "missing": options.get("missing")}
    query = _query(**{name: value for name, value in options.items() if name not in several})
    # No text at all that stands for a missing value is said, too: by an empty one.
    query += tuple((name, each) for name, given in several.items() if given is not None for each in given or [""])
    request = Request(
        method="PUT",
        path=_path("v1", "datasets", name),
        query=tuple((name, value) for name, value in query if value or name == "missing"),
        body=body,
        content_type=body.content_type,
        write=True,
        silence=PARSE_SECONDS,
    )
    return Call(request, lambda r: read_json(r, Dataset))


def content(name: str, version: int | None, kind: str) -> Request:
    """The whole of a dataset, as a file of that format."""
    where = ("v1", "datasets", name, *(("versions", version) if version is not None else ()), "content")
    request = _get(*where, query=_query(format=kind))
    return msgspec.structs.replace(request, silence=PARSE_SECONDS, accept="*/*")


# ---------------------------------------------------------------- jobs
def submit(spec: JobSpec) -> Call[Job]:
    return Call(_post("v1", "jobs", value=spec), lambda r: read_json(r, Job))


def jobs(state: str | None, prefix: str | None, limit: int | None, after: str | None) -> Call[JobPage]:
    query = _query(state=state, prefix=prefix, limit=limit, after=after)
    return Call(_get("v1", "jobs", query=query), lambda r: read_json(r, JobPage))


def delete_job(job_id: str) -> Call[None]:
    return Call(Request(method="DELETE", path=_path("v1", "jobs", job_id), write=True), _nothing)


def job(job_id: str) -> Call[Job]:
    return Call(_get("v1", "jobs", job_id), lambda r: read_json(r, Job))


def leaderboard(job_id: str, dataset_name: str | None) -> Call[Leaderboard]:
    request = _get("v1", "jobs", job_id, "leaderboard", query=_query(dataset=dataset_name))
    return Call(request, lambda r: read_json(r, Leaderboard))


def cancel(job_id: str) -> Call[Job]:
    return Call(_post("v1", "jobs", job_id, "cancel"), lambda r: read_json(r, Job))


def retry(job_id: str) -> Call[Job]:
    return Call(_post("v1", "jobs", job_id, "retry"), lambda r: read_json(r, Job))


# ---------------------------------------------------------------- models
def models() -> Call[list[Model]]:
    return Call(_get("v1", "models"), lambda r: read_list(r, Model, "models"))


def model(name: str) -> Call[Model]:
    return Call(_get("v1", "models", name), lambda r: read_json(r, Model))


def model_version(name: str, version: int) -> Call[ModelVersion]:
    return Call(_get("v1", "models", name, "versions", version), lambda r: read_json(r, ModelVersion))


def set_alias(name: str, alias: str, request: AliasRequest) -> Call[AliasMoved]:
    put = Request(method="PUT", path=_path("v1", "models", name, "aliases", alias), body=to_json(request), write=True)
    return Call(put, lambda r: read_json(r, AliasMoved))


def delete_alias(name: str, alias: str) -> Call[None]:
    path = _path("v1", "models", name, "aliases", alias)
    return Call(Request(method="DELETE", path=path, write=True), _nothing)


def rollback(name: str, alias: str) -> Call[AliasMoved]:
    return Call(_post("v1", "models", name, "aliases", alias, "rollback"), lambda r: read_json(r, AliasMoved))


def alias_history(name: str, alias: str) -> Call[list[AliasChange]]:
    request = _get("v1", "models", name, "aliases", alias, "history")
    return Call(request, lambda r: read_list(r, AliasChange, "history"))


def predict(name: str, data: "Rows", version: int | None, silence: float | None) -> Call[PredictResponse]:
    body, kind = predict_body(data)
    parts = ("v1", "models", name) if version is None else ("v1", "models", name, "versions", version)
    request = Request(method="POST", path=_path(*parts, "predict"), body=body, content_type=kind, silence=silence)
    return Call(request, lambda r: read_json(r, PredictResponse))


# ---------------------------------------------------------------- access, events
def tokens() -> Call[list[TokenRecord]]:
    return Call(_get("v1", "tokens"), lambda r: read_list(r, TokenRecord, "tokens"))


def create_token(request: TokenRequest) -> Call[TokenRecord]:
    return Call(_post("v1", "tokens", value=request), lambda r: read_json(r, TokenRecord))


def revoke_token(token_id: str) -> Call[None]:
    return Call(Request(method="DELETE", path=_path("v1", "tokens", token_id), write=True), _nothing)


def events(since: int | None, kind: str | None, *, follow: bool = True) -> Request:
    """The request of the event stream, whose answer has no end: it is over after `silence` seconds without a byte."""
    return Request(
        method="GET",
        path="/v1/events",
        query=_query(since=since, kind=kind),
        accept="text/event-stream",
        silence=STREAM_SILENCE if follow else CAUGHT_UP_SECONDS,
    )


def job_spec(
    datasets: str | DatasetRef | Sequence[str | DatasetRef],
    *,
    name: str = "",
    models: Literal["default", "all"] | Sequence[str | CandidateSpec] = "default",
    order: Literal["parallel", "sequential"] = "parallel",
    metric: str = "auto",
    folds: int = 5,
    holdout: float = 0.2,
    seed: int = 0,
    publish: PublishSpec | None = None,
    limits: LimitSpec | None = None,
) -> JobSpec:
    """A `JobSpec` from the settings that people change; everything else keeps its default."""
    return JobSpec(
        datasets=[datasets] if isinstance(datasets, str | DatasetRef) else list(datasets),
        name=name,
        models=cast("Literal['default', 'all']", models) if isinstance(models, str) else list(models),
        order=order,
        metric=metric,
        cv=CvSpec(folds=folds, holdout=holdout),
        seed=seed,
        publish=publish or PublishSpec(),
        limits=limits or LimitSpec(),
    )
