"""Training jobs: submitted, followed, cancelled, tried again."""

import base64
import hashlib
import math
import secrets
import time
from typing import TYPE_CHECKING

import msgspec
from aiohttp import web

from consensus import state as facts
from consensus.messages import CancelJob, DeleteJob, Event, RetryJob, SubmitJob
from consensus.queries import current_version, jobs_by_age
from consensus.state import ClusterState, JobId, JobState, Json
from node.http import views
from node.http.context import Ports
from node.http.errors import Refusal, Unknown, invalid, unknown
from node.http.events import PARAMETERS, follow
from node.http.params import body, integer, known_only
from node.http.routes import Route, answer, catch_up, command_id, commit, key_reused, ports_of, was_done
from node.peering.words import PeerError
from node.telemetry.live import PEER_PATH
from parvada import schema

if TYPE_CHECKING:  # it imports the catalog, and that scikit-learn: work for the workshop
    from training.spec import ResolvedJob

RESOLVE = "training.spec:resolve_job"
TALLIED_FROM = 2
"""The level from which on jobs are tallied."""
LIVE_SECONDS = 5.0
"""For another node's answer: whoever looks at a live curve asks again."""


async def submit(request: web.Request) -> web.Response:
    """Everything that can be wrong with the job is found here; 202 once it is committed."""
    known_only(request)
    ports = ports_of(request)
    spec = await body(request, schema.JobSpec)
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
    found = state.jobs[job]
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
        raise unknown("job", asked, jobs)
    return jobs[JobId(asked)]


async def list_jobs(request: web.Request) -> web.Response:
    """Newest first; `next` of the answer, given as `after`, asks for those that come then."""
    known_only(request, ["state", "limit", "after", "prefix"])
    wanted, state = request.query.get("state"), ports_of(request).log.state
    if wanted is not None and wanted not in set(JobState):
        raise invalid("state", wanted, f"one of {', '.join(JobState)}")
    limit, prefix = integer(request, "limit", 100, 1, 1000), request.query.get("prefix", "")
    after = request.query.get("after")
    before = _place(after, state) if after is not None else (math.inf, "")
    found = [
        job
        for job in reversed(jobs_by_age(state))
        if (job.created_at, job.id) < before and wanted in (None, job.state.value) and job.id.startswith(prefix)
    ]
    page, more = found[:limit], len(found) > limit
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
    moment, _, name = after.partition("~")
    try:
        return float(moment), name
    except ValueError as error:
        raise invalid("after", after, "what `next` of an earlier answer said, or the id of a job") from error


async def get_job(request: web.Request) -> web.Response:
    known_only(request)
    return answer(views.job(ports_of(request).log.state, _job(request)))


async def leaderboard(request: web.Request) -> web.Response:
    known_only(request, ["dataset"])
    job, only = _job(request), request.query.get("dataset")
    names = [unit.dataset for unit in job.units]
    if only is not None and only not in names:
        raise unknown("dataset", only, names)
    ports = ports_of(request)
    whole = await _whole(ports, job)
    return answer(views.leaderboard(ports.log.state, whole, only))


async def _whole(ports: Ports, job: facts.Job) -> facts.Job:
    """With the candidates that are only in its results file, which may just have been replaced by another."""
    try:
        return await ports.results.whole(job)
    except PeerError:
        now = ports.log.state.jobs.get(job.id)
        if now is None:
            raise unknown("job", job.id, ports.log.state.jobs) from None
        if now.results == job.results:
            raise
        return await ports.results.whole(now)


async def live(request: web.Request) -> web.Response:
    """The curves of its fits that run now, which only the node of the trainer knows."""
    known_only(request)
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


async def events(request: web.Request) -> web.StreamResponse:
    """As `/v1/events`, of this job alone."""
    known_only(request, PARAMETERS)
    job, kind = _job(request).id, request.query.get("kind", "")

    def wanted(event: Event) -> bool:
        return event.subject == job and event.kind.startswith("job.") and event.kind.startswith(kind)

    return await follow(request, wanted)


async def cancel(request: web.Request) -> web.Response:
    known_only(request)
    return await _change(request, CancelJob(_job(request).id))


async def retry(request: web.Request) -> web.Response:
    known_only(request)
    return await _change(request, RetryJob(_job(request).id))


async def delete(request: web.Request) -> web.Response:
    """The job, its leaderboard and its results; models that it made stay."""
    known_only(request)
    name = JobId(request.match_info["job"]) if was_done(request) else _job(request).id
    done = await commit(request, DeleteJob(name))
    return answer({"id": name, "deleted": True}, index=done.index)


async def _change(request: web.Request, command: CancelJob | RetryJob) -> web.Response:
    done = await commit(request, command)
    state = ports_of(request).log.state
    return answer(views.job(state, state.jobs[command.job]), index=done.index)


ROUTES = (
    Route("POST", "/v1/jobs", submit, "operator"),
    Route("GET", "/v1/jobs", list_jobs),
    Route("GET", "/v1/jobs/{job}", get_job),
    Route("GET", "/v1/jobs/{job}/leaderboard", leaderboard),
    Route("GET", "/v1/jobs/{job}/live", live),
    Route("GET", "/v1/jobs/{job}/events", events),
    Route("POST", "/v1/jobs/{job}/cancel", cancel, "operator"),
    Route("POST", "/v1/jobs/{job}/retry", retry, "operator"),
    Route("DELETE", "/v1/jobs/{job}", delete, "operator"),
)
