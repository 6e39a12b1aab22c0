"""Rules of models: versions are published once a candidate, aliases move and remember every move."""

from typing import Final

from msgspec.structs import replace

from consensus.messages import DropAlias, Event, MoveAlias, PublishVersion, RollBackAlias
from consensus.queries import last_move, published_version
from consensus.rules import blobs
from consensus.rules.checks import (
    ENGINES,
    TASKS,
    Change,
    Stamp,
    check_choice,
    check_count,
    check_digest,
    check_json,
    check_name,
    check_text,
    event,
    json_object,
    refuse,
    shown,
)
from consensus.rules.effects import fitted_candidate
from consensus.rules.jobs import job_in_epoch, with_job
from consensus.state import AliasMove, Candidate, ClusterState, Job, Json, Model, ModelVersion

HISTORY_MOVES: Final = 1000


def publish_version(state: ClusterState, command: PublishVersion, stamp: Stamp) -> Change:
    job = job_in_epoch(state, command.epoch, command.job)
    candidate = fitted_candidate(job, command.candidate)
    earlier = published_version(state, job.id, candidate.id)
    if earlier is not None:
        # The first publication counts, but a retried job has lost the candidate's final result.
        after = _with_final(state, job, candidate, candidate.final or command.final)
        return Change(after, value=json_object(version=earlier.version, created=False, alias_moved=False))
    _check(command)
    held = blobs.register(state, ((command.digest, command.bytes),), (command.blob,))
    model = state.models.get(command.model, Model(command.model))
    version = _version(model.latest + 1, command, stamp)
    model = replace(model, versions=model.versions.set(version.version, version), latest=version.version)
    told = [event(stamp, "model.published", model.name, version=version.version, job=job.id, candidate=candidate.id)]
    if command.move_alias:
        model, moved = _moved(model, command.alias, version.version, "published", stamp)
        told.append(moved)
    after = _with_final(replace(state, blobs=held), job, candidate, command.final)
    return Change(
        _with_model(after, model),
        tuple(told),
        json_object(version=version.version, created=True, alias_moved=command.move_alias),
    )


def move_alias(state: ClusterState, command: MoveAlias, stamp: Stamp) -> Change:
    model = _known_model(state, command.model)
    check_name("alias", command.alias)
    check_text("comment", command.comment, empty=True)
    if command.version not in model.versions:
        refuse("not_found", f"model {model.name} has no version {command.version}")
    present = model.aliases.get(command.alias, 0)
    if command.expected is not None and command.expected != present:
        refuse("conflict", f"alias {command.alias} names version {present or 'none'}, not {command.expected or 'none'}")
    value = json_object(version=command.version, previous=present)
    if command.version == present:
        return Change(state, value=value)
    model, moved = _moved(model, command.alias, command.version, command.comment, stamp)
    return Change(_with_model(state, model), (moved,), value)


def drop_alias(state: ClusterState, command: DropAlias, stamp: Stamp) -> Change:
    model = _known_model(state, command.model)
    present = model.aliases.get(command.alias)
    if present is None:
        check_name("alias", command.alias)
        refuse("not_found", f"model {model.name} has no alias {command.alias}")
    model = replace(
        _noted(model, AliasMove(command.alias, 0, present, stamp.at, stamp.actor, "dropped", stamp.index)),
        aliases=model.aliases.delete(command.alias),
    )
    told = event(stamp, "alias.dropped", model.name, alias=command.alias, previous=present)
    return Change(_with_model(state, model), (told,))


def roll_back_alias(state: ClusterState, command: RollBackAlias, stamp: Stamp) -> Change:
    model = _known_model(state, command.model)
    last = last_move(state, model.name, command.alias)
    if last is None:
        check_name("alias", command.alias)
        refuse("not_found", f"model {model.name} never had an alias {command.alias}")
    if last.previous == 0:
        refuse("conflict", f"alias {command.alias} named no version before its last move")
    present = model.aliases.get(command.alias, 0)
    model, moved = _moved(model, command.alias, last.previous, "rolled back", stamp)
    return Change(_with_model(state, model), (moved,), json_object(version=last.previous, previous=present))


def _moved(model: Model, alias: str, version: int, comment: str, stamp: Stamp) -> tuple[Model, Event]:
    previous = model.aliases.get(alias, 0)
    move = AliasMove(alias, version, previous, stamp.at, stamp.actor, comment, stamp.index)
    told = event(stamp, "alias.moved", model.name, alias=alias, version=version, previous=previous)
    return replace(_noted(model, move), aliases=model.aliases.set(alias, version)), told


def _noted(model: Model, move: AliasMove) -> Model:
    return replace(model, history=(*model.history, move)[-HISTORY_MOVES:])


def _known_model(state: ClusterState, name: str) -> Model:
    model = state.models.get(name)
    if model is None:
        check_name("model", name)
        refuse("not_found", f"there is no model {name}")
    return model


def _with_model(state: ClusterState, model: Model) -> ClusterState:
    return replace(state, models=state.models.set(model.name, model))


def _with_final(state: ClusterState, job: Job, candidate: Candidate, final: Json) -> ClusterState:
    if candidate.final == final:
        return state
    candidates = job.candidates.set(candidate.id, replace(candidate, final=final))
    return with_job(state, replace(job, candidates=candidates))


def _check(command: PublishVersion) -> None:
    check_name("model", command.model)
    check_digest("digest", command.digest)
    check_count("bytes", command.bytes, 1)
    check_choice("task", command.task, TASKS)
    check_name("estimator", command.estimator)
    check_choice("engine", command.engine, ENGINES)
    check_json("detail", command.detail)
    check_json("final", command.final)
    if command.move_alias:
        check_name("alias", command.alias)
    if command.blob.digest != command.digest:
        refuse("invalid", f"the blob is {shown(command.blob.digest)}, the model file {command.digest}")


def _version(number: int, command: PublishVersion, stamp: Stamp) -> ModelVersion:
    return ModelVersion(
        model=command.model,
        version=number,
        digest=command.digest,
        bytes=command.bytes,
        task=command.task,
        estimator=command.estimator,
        engine=command.engine,
        detail=command.detail,
        job=command.job,
        candidate=command.candidate,
        created_at=stamp.at,
    )
