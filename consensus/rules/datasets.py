"""Rules of datasets: a new version is a new number, the same content is not kept twice."""

from msgspec.structs import replace

from consensus.messages import AddDatasetVersion, DeleteDataset
from consensus.queries import current_version, jobs_using
from consensus.rules import blobs
from consensus.rules.checks import (
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
)
from consensus.state import ClusterState, Dataset, DatasetVersion

_MAX_PARTS = 5000


def add_dataset_version(state: ClusterState, command: AddDatasetVersion, stamp: Stamp) -> Change:
    _check(command)
    held = blobs.register(state, ((part.digest, part.bytes) for part in command.parts), command.blobs)
    newest = current_version(state, command.name)
    if newest is not None and _same_content(newest, command):
        # The holders are news all the same.
        after = state if held == state.blobs else replace(state, blobs=held)
        return Change(after, value=json_object(version=newest.version, created=False))
    version = _version(state, command, stamp)
    dataset = state.datasets.get(command.name, Dataset(command.name))
    dataset = replace(dataset, versions=dataset.versions.set(version.version, version), latest=version.version)
    return Change(
        replace(state, blobs=held, datasets=state.datasets.set(command.name, dataset)),
        (event(stamp, "dataset.added", command.name, version=version.version, rows=version.rows),),
        json_object(version=version.version, created=True),
    )


def delete_dataset(state: ClusterState, command: DeleteDataset, stamp: Stamp) -> Change:
    """Its version numbers are not used again: jobs and models go on naming the data that they were made from."""
    dataset = state.datasets.get(command.name)
    if dataset is None:
        check_name("dataset", command.name)
        refuse("not_found", f"there is no dataset {command.name}")
    users = jobs_using(state, command.name)
    if users:
        refuse("in_use", f"dataset {command.name} is in use by job {users[0]}: cancel it or wait for its end")
    after = replace(
        state,
        datasets=state.datasets.delete(command.name),
        retired=state.retired.set(command.name, dataset.latest),
    )
    parts = (part.digest for version in dataset.versions.values() for part in version.parts)
    return Change(
        blobs.forget_unreferenced(after, parts),
        (event(stamp, "dataset.deleted", command.name, versions=len(dataset.versions)),),
    )


def _check(command: AddDatasetVersion) -> None:
    check_name("dataset", command.name)
    check_digest("digest of the dataset", command.digest)
    check_count("rows", command.rows, 1)
    check_count("bytes", command.bytes)
    check_count("number of parts", len(command.parts), 1, _MAX_PARTS)
    check_text("target", command.target)
    check_choice("task", command.task, TASKS)
    check_json("detail", command.detail)
    for part in command.parts:
        check_count("rows of a part", part.rows)
    rows = sum(part.rows for part in command.parts)
    if rows != command.rows:
        refuse("invalid", f"the parts have {rows} rows together, the dataset {command.rows}")


def _same_content(newest: DatasetVersion, command: AddDatasetVersion) -> bool:
    return (newest.digest, newest.target, newest.task) == (command.digest, command.target, command.task)


def _version(state: ClusterState, command: AddDatasetVersion, stamp: Stamp) -> DatasetVersion:
    present = state.datasets.get(command.name)
    latest = state.retired.get(command.name, 0) if present is None else present.latest
    return DatasetVersion(
        name=command.name,
        version=latest + 1,
        digest=command.digest,
        rows=command.rows,
        bytes=command.bytes,
        parts=command.parts,
        target=command.target,
        task=command.task,
        detail=command.detail,
        created_at=stamp.at,
        created_by=stamp.actor,
    )
