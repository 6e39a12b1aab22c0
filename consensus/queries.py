"""Pure questions about a `ClusterState` that more than one package asks: what is referenced, who holds it, which
version is meant, what became of a command."""

from collections.abc import Iterator

import msgspec

from consensus.messages import TALLIED_FROM, Accepted, Outcome, Rejected
from consensus.state import (
    AliasMove,
    Candidate,
    CandidateId,
    ClusterState,
    CommandId,
    DatasetVersion,
    Digest,
    Job,
    JobId,
    JobState,
    Json,
    Member,
    MemberStatus,
    ModelVersion,
    NodeId,
    Remembered,
)

UNFINISHED = (JobState.QUEUED, JobState.RUNNING)


# ---------------------------------------------------------------- members and blobs
def active_members(state: ClusterState) -> tuple[Member, ...]:
    """Members that take part in placement and training, by id."""
    return tuple(member for member in _by_id(state) if member.status is MemberStatus.ACTIVE)


def _by_id(state: ClusterState) -> list[Member]:
    return [state.members[node] for node in sorted(state.members)]


def referenced_digests(state: ClusterState) -> frozenset[Digest]:
    """Every blob that a dataset version or a model version is made of, or that holds results of a job."""
    parts = (
        part.digest
        for dataset in state.datasets.values()
        for version in dataset.versions.values()
        for part in version.parts
    )
    found = set(parts)
    found.update(version.digest for version in _model_versions(state))
    for job in state.jobs.values():
        found.update(job.segments)
        if job.results:
            found.add(job.results)
    return frozenset(found)


def serving_digests(state: ClusterState) -> frozenset[Digest]:
    """Model files that an alias names: every node holds them, ahead of need."""
    return frozenset(
        model.versions[number].digest for model in state.models.values() for number in model.aliases.values()
    )


def holders(state: ClusterState, digest: Digest) -> tuple[NodeId, ...]:
    """All members that are recorded to hold a blob, present or not."""
    blob = state.blobs.get(digest)
    return () if blob is None else blob.holders


def available_holders(state: ClusterState, digest: Digest) -> tuple[NodeId, ...]:
    """Holders worth asking: those that are not away."""
    return tuple(node for node in holders(state, digest) if state.members[node].status is not MemberStatus.AWAY)


# ---------------------------------------------------------------- datasets, jobs, models
def current_version(state: ClusterState, name: str, version: int | None = None) -> DatasetVersion | None:
    """That version of a dataset, the newest if none is given; None if there is no such thing."""
    dataset = state.datasets.get(name)
    if dataset is None:
        return None
    return dataset.versions.get(dataset.latest if version is None else version)


def find_version(
    state: ClusterState, name: str, version: int | None = None, alias: str | None = None
) -> ModelVersion | None:
    """A model's version by its number, else by alias, else the newest; None if there is no such thing."""
    model = state.models.get(name)
    if model is None:
        return None
    if version is None:
        version = model.latest if alias is None else model.aliases.get(alias, 0)
    return model.versions.get(version)


def published_version(state: ClusterState, job: JobId, candidate: CandidateId) -> ModelVersion | None:
    """The version that this candidate of this job became."""
    for version in _model_versions(state):
        if version.job == job and version.candidate == candidate:
            return version
    return None


def _model_versions(state: ClusterState) -> Iterator[ModelVersion]:
    for model in state.models.values():
        yield from model.versions.values()


def aliases_of(state: ClusterState, name: str, version: int) -> tuple[str, ...]:
    model = state.models.get(name)
    if model is None:
        return ()
    return tuple(sorted(alias for alias, number in model.aliases.items() if number == version))


def last_move(state: ClusterState, name: str, alias: str) -> AliasMove | None:
    model = state.models.get(name)
    moves = () if model is None else model.history
    return next((move for move in reversed(moves) if move.alias == alias), None)


def jobs_by_age(state: ClusterState) -> tuple[Job, ...]:
    """Oldest first; equal times in the order of their ids."""
    return tuple(sorted(state.jobs.values(), key=_age))


def _age(job: Job) -> tuple[float, JobId]:
    return job.created_at, job.id


def unfinished_jobs(state: ClusterState) -> tuple[Job, ...]:
    """Queued and running jobs, oldest first."""
    return tuple(sorted((job for job in state.jobs.values() if job.state in UNFINISHED), key=_age))


def sealable_jobs(state: ClusterState) -> tuple[Job, ...]:
    """Ended jobs that are not sealed, oldest first. One that is kept whole and may be tried again stays as it is."""
    if state.level < TALLIED_FROM:
        return ()
    return tuple(
        sorted(
            (
                job
                for job in state.jobs.values()
                if not job.sealed
                and job.state not in UNFINISHED
                and (job.state is JobState.SUCCEEDED or all(unit.tally is not None for unit in job.units))
            ),
            key=_age,
        )
    )


def expired_jobs(state: ClusterState, kept: int) -> tuple[Job, ...]:
    """The ended jobs beyond the `kept` that ended last, oldest first; none whose model an alias names."""
    if state.level < TALLIED_FROM:
        return ()
    ended = sorted((job for job in state.jobs.values() if job.state not in UNFINISHED), key=lambda job: job.ended_at)
    if len(ended) <= kept:
        return ()
    named = {model.versions[number].job for model in state.models.values() for number in model.aliases.values()}
    return tuple(job for job in ended[: len(ended) - kept] if job.id not in named)


def jobs_using(state: ClusterState, dataset: str) -> tuple[JobId, ...]:
    """Queued and running jobs that train on any version of `dataset`, sorted."""
    return tuple(
        sorted(
            job.id
            for job in state.jobs.values()
            if job.state in UNFINISHED and any(unit.dataset == dataset for unit in job.units)
        )
    )


def is_done(candidate: Candidate, fold: int) -> bool:
    return fold in candidate.folds or fold in candidate.scores


def folds_done(candidate: Candidate) -> int:
    """How many are; a candidate has them in one of two forms (see `Job`)."""
    return len(candidate.folds) + len(candidate.scores)


# ---------------------------------------------------------------- commands
def remember(index: int, outcome: Outcome) -> Remembered:
    """The form in which the state keeps an outcome; `outcome_of` is its inverse."""
    if isinstance(outcome, Rejected):
        return Remembered(index, True, outcome.code, Json(msgspec.json.encode(outcome.reason)))
    return Remembered(index, False, "", outcome.value)


def remembers(state: ClusterState, command: CommandId) -> bool:
    """Whether a command was applied, as far back as the state knows."""
    return command in state.recent or command in state.recent_before


def remembered(state: ClusterState, command: CommandId) -> Remembered:
    """What became of a command. Raises KeyError unless the state `remembers` it."""
    known = state.recent.get(command)
    return state.recent_before[command] if known is None else known


def outcome_of(remembered: Remembered) -> Outcome:
    """The outcome of a command that the state remembers."""
    if remembered.rejected:
        return Rejected(remembered.code, msgspec.json.decode(remembered.value, type=str))
    return Accepted(remembered.value)
