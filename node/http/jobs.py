"""Training jobs: submitted, followed, cancelled, tried again."""

import asyncio
import base64
import hashlib
import math
import secrets
import time
from typing import TYPE_CHECKING, Annotated

import msgspec
from aiohttp import web

from consensus import state as facts
from consensus.messages import TALLIED_FROM, CancelJob, DeleteJob, Event, RetryJob, SubmitJob
from consensus.queries import current_version, jobs_by_age
from consensus.state import ClusterState, JobId, JobState, Json
from node.http import views
from node.http.context import Ports
from node.http.errors import Refusal, Unknown, unknown
from node.http.events import EVENTS, EventsQuery, follow
from node.http.routes import Route, answer, catch_up, command_id, commit, key_reused, ports_of, route, was_done
from node.peering.words import PeerError
from node.telemetry.live import PEER_PATH
from parvada import schema
from parvada.contract.kinds import Freshness, matching
from parvada.contract.operation import Answer, Example
from training.results import BadResults

if TYPE_CHECKING:  # it imports the catalog, and that scikit-learn: work for the workshop
    from training.spec import ResolvedJob

RESOLVE = "training.spec:resolve_job"
LIVE_SECONDS = 5.0
"""For another node's answer: whoever looks at a live curve asks again."""
_PLACE = r"^([0-9]+(\.[0-9]+)?~[a-z0-9]+|[a-z0-9]{12})$"


@route(
    "POST",
    "/v1/jobs",
    Answer(schema.Job, 202),
    tag="Jobs",
    role="operator",
    body=schema.JobSpec,
    examples=(
        Example(
            "Two models on one dataset", {"datasets": ["iris"], "models": ["GaussianNB", "DecisionTreeClassifier"]}
        ),
        Example(
            "Random search, with a seed",
            {
                "name": "spring",
                "datasets": [{"name": "iris", "version": 1}],
                "models": [
                    {"estimator": "LogisticRegression", "search": {"C": {"low": 0.01, "high": 100, "log": True}}}
                ],
                "search": {"method": "random", "trials": 5},
                "metric": "accuracy",
                "cv": {"folds": 3},
                "seed": 7,
                "publish": {"when": "never"},
            },
        ),
    ),
    refuses=(404, 422, 429),
)
async def submit(request: web.Request, spec: schema.JobSpec) -> web.Response:
    """Submit a training job.

    Everything that can be wrong with it is found here. All fields but `datasets` have defaults.
    """
    ports = ports_of(request)
    job, written = _new_id(request), Json(msgspec.json.encode(spec))
    if job in ports.log.state.jobs:
        # Once only, also when the dataset has gone or the catalog has changed since.
        return _submitted(request, job, written, ports.log.state.index)
    await catch_up(ports)  # or the newest version of a dataset might not be the one that was acknowledged last
    versions = [_dataset(ports.log.state, asked) for asked in spec.datasets]
    tallied = ports.log.state.level >= TALLIED_FROM
    resolved: ResolvedJob = await ports.workshop.run(RESOLVE, spec, versions, tallied)
    command = SubmitJob(
        job=job,
        name=spec.name or "+".join(version.name for version in versions)[:128],
        spec=written,
        units=resolved.units,
        candidates=resolved.candidates,
    )
    done = await commit(request, command)
    return _submitted(request, job, written, done.index)


def _submitted(request: web.Request, job: JobId, spec: Json, index: int) -> web.Response:
    state = ports_of(request).log.state
    found = state.jobs.get(job)
    if found is None:
        raise key_reused(f"the job {job} that it made has been deleted")
    if found.spec != spec:
        raise key_reused(f"submitted the job {job} with another specification")
    return answer(views.job(state, found), 202, index)


def _dataset(state: ClusterState, asked: str | schema.DatasetRef) -> facts.DatasetVersion:
    ref = asked if isinstance(asked, schema.DatasetRef) else schema.DatasetRef(name=asked)
    if ref.name not in state.datasets:
        raise unknown("dataset", ref.name, state.datasets)
    found = current_version(state, ref.name, ref.version)
    if found is None:
        versions = ", ".join(map(str, sorted(state.datasets[ref.name].versions)))
        message = f"dataset {ref.name!r} has no version {ref.version}; it has {versions}"
        raise Unknown(404, "unknown_version", message, {"name": ref.name, "version": ref.version})
    return found


def _new_id(request: web.Request) -> JobId:
    """12 characters that sort by time of submission; of an idempotency key always the same."""
    key = command_id(request)
    if key is not None:
        raw = hashlib.sha256(key.encode()).digest()[:7]
        return JobId("k" + base64.b32encode(raw).decode().lower().rstrip("=")[:11])
    moment = int(time.time() * 1000).to_bytes(6, "big")
    return JobId(base64.b32hexencode(moment)[:10].decode().lower()[2:] + secrets.token_hex(2))


def _job(request: web.Request) -> facts.Job:
    asked, jobs = request.match_info["job"], ports_of(request).log.state.jobs
    if JobId(asked) not in jobs:
        raise unknown("job", asked)
    return jobs[JobId(asked)]


class JobsQuery(Freshness, frozen=True, kw_only=True):
    state: JobState | None = None
    """Only those in this state."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100
    """So many at most."""
    after: Annotated[str, matching(_PLACE, "what `next` of an earlier answer said, or the id of a job")] | None = None
    """Those that come after: what `next` of an earlier answer said, or the id of a job."""
    prefix: str = ""
    """Only those of which the id begins so."""


@route("GET", "/v1/jobs", Answer(schema.JobPage), tag="Jobs", query=JobsQuery, refuses=(404,))
async def list_jobs(request: web.Request, query: JobsQuery) -> web.Response:
    """All jobs, newest first.

    `next` of the answer, given as `after`, asks for those that come then.
    """
    state = ports_of(request).log.state
    before = _place(query.after, state) if query.after is not None else (math.inf, "")
    found = [
        job
        for job in reversed(jobs_by_age(state))
        if (job.created_at, job.id) < before and query.state in (None, job.state) and job.id.startswith(query.prefix)
    ]
    page, more = found[: query.limit], len(found) > query.limit
    return answer(
        schema.JobPage(
            jobs=[views.job_summary(state, job) for job in page],
            next=f"{page[-1].created_at!r}~{page[-1].id}" if more else None,
        )
    )


def _place(after: str, state: ClusterState) -> tuple[float, str]:
    """Where a page ended: also of a job that has been deleted since. The id of a job will do, too."""
    job = state.jobs.get(JobId(after))
    if job is not None:
        return job.created_at, job.id
    moment, mark, name = after.partition("~")
    if not mark:
        raise unknown("job", after)
    return float(moment), name


@route("GET", "/v1/jobs/{job}", Answer(schema.Job), tag="Jobs")
async def get_job(request: web.Request) -> web.Response:
    """One job, with its progress."""
    # In a thread, as below: a job that has just ended may have thousands of candidates to rank.
    return answer(await asyncio.to_thread(views.job, ports_of(request).log.state, _job(request)))


class LeaderboardQuery(Freshness, frozen=True, kw_only=True):
    dataset: str | None = None
    """Only the rows of this one of the job's datasets."""


@route("GET", "/v1/jobs/{job}/leaderboard", Answer(schema.Leaderboard), tag="Jobs", query=LeaderboardQuery)
async def leaderboard(request: web.Request, query: LeaderboardQuery) -> web.Response:
    """Rows best first; every candidate has one, also the failed ones."""
    job, only = _job(request), query.dataset
    names = [unit.dataset for unit in job.units]
    if only is not None and only not in names:
        raise unknown("dataset", only, names)
    ports = ports_of(request)
    whole = await _whole(ports, job)
    return answer(await asyncio.to_thread(views.leaderboard, ports.log.state, whole, only))


async def _whole(ports: Ports, job: facts.Job) -> facts.Job:
    """With the candidates that are only in its results file, which may just have been replaced by another."""
    try:
        return await ports.results.whole(job)
    except BadResults:
        message = f"the results file of job {job.id} (blob {job.results}) cannot be read"
        raise Refusal(500, "unreadable_results", message) from None
    except (PeerError, FileNotFoundError):
        now = ports.log.state.jobs.get(job.id)
        if now is None:
            raise unknown("job", job.id) from None
        if now.results == job.results:
            raise
        return await ports.results.whole(now)


@route("GET", "/v1/jobs/{job}/live", Answer(schema.LiveJob), tag="Jobs")
async def live(request: web.Request) -> web.Response:
    """The curves of a job's fits that run now.

    They are asked of the node of the trainer, which alone knows them.
    """
    ports, job = ports_of(request), _job(request).id
    head = ports.log.state.epoch.head
    if head in ("", ports.settings.node):
        shown = ports.live.read(job)
    else:
        try:
            shown = await ports.peers.call(head, "GET", PEER_PATH + job, timeout=LIVE_SECONDS)
        except PeerError as error:
            message = f"the node that trains cannot be asked now: {error}"
            raise Refusal(503, "head_unreachable", message) from error
    return web.Response(body=shown, content_type="application/json", charset="utf-8")


@route("GET", "/v1/jobs/{job}/events", EVENTS, tag="Jobs", query=EventsQuery, refuses=(429,))
async def events(request: web.Request, query: EventsQuery) -> web.StreamResponse:
    """As `/v1/events`, of this job alone."""
    job = _job(request).id

    def wanted(event: Event) -> bool:
        return event.subject == job and event.kind.startswith("job.") and event.kind.startswith(query.kind)

    return await follow(request, query.since, wanted)


@route("POST", "/v1/jobs/{job}/cancel", Answer(schema.Job), tag="Jobs", role="operator")
async def cancel(request: web.Request) -> web.Response:
    """Cancel a job that has not ended."""
    return await _change(request, CancelJob(_job(request).id))


@route("POST", "/v1/jobs/{job}/retry", Answer(schema.Job), tag="Jobs", role="operator")
async def retry(request: web.Request) -> web.Response:
    """Try a job that failed or was cancelled again."""
    return await _change(request, RetryJob(_job(request).id))


@route("DELETE", "/v1/jobs/{job}", Answer(schema.JobDeleted), tag="Jobs", role="operator")
async def delete(request: web.Request) -> web.Response:
    """Delete a job that has ended: its leaderboard and its results.

    Models that it made stay.
    """
    name = JobId(request.match_info["job"]) if was_done(request) else _job(request).id
    done = await commit(request, DeleteJob(name))
    return answer(schema.JobDeleted(id=name), index=done.index)


async def _change(request: web.Request, command: CancelJob | RetryJob) -> web.Response:
    done = await commit(request, command)
    # By its name: it may have been deleted by the time that this node has applied the command.
    told = await asyncio.to_thread(views.job, ports_of(request).log.state, _job(request))
    return answer(told, index=done.index)


ROUTES: tuple[Route, ...] = (submit, list_jobs, get_job, leaderboard, live, events, cancel, retry, delete)
