"""Versions of datasets: numbered by the machine, never copied, never renumbered, protected while in use."""

import pytest
from msgspec.structs import replace

from consensus.messages import CancelJob, DeleteDataset, HeldBlob, RetryJob
from consensus.queries import current_version, jobs_using
from consensus.state import Json
from tests.unit.consensus.facts import BEGUN, JOB, QUEUED, A, B, Cluster, add, digest, kinds


def test_versions_count_up() -> None:
    cluster = Cluster(*BEGUN)
    assert cluster.value(add(number=1)) == {"version": 1, "created": True}
    assert cluster.value(add(number=2)) == {"version": 2, "created": True}
    newest = current_version(cluster.state, "iris")
    assert newest is not None
    assert (newest.version, newest.digest, newest.created_by) == (2, digest(502), "ann")
    assert current_version(cluster.state, "iris", 1) is not None
    assert current_version(cluster.state, "iris", 3) is None
    assert current_version(cluster.state, "wine") is None


def test_the_same_content_again_is_the_newest_version_with_more_holders() -> None:
    cluster = Cluster(*BEGUN, add())
    applied = cluster.accept(add(holders=(B,)))
    assert applied.events == ()
    assert len(cluster.state.datasets["iris"].versions) == 1
    assert cluster.state.blobs[digest(1)].holders == (A, B)
    assert cluster.value(add()) == {"version": 1, "created": False}


@pytest.mark.parametrize("changed", [{"target": "z"}, {"task": "regression"}, {"digest": digest(5)}])
def test_another_target_task_or_content_is_another_version(changed: dict[str, str]) -> None:
    cluster = Cluster(*BEGUN, add())
    assert cluster.value(replace(add(), **changed)) == {"version": 2, "created": True}


def test_older_content_again_is_new() -> None:
    cluster = Cluster(*BEGUN, add(number=1), add(number=2))
    assert cluster.value(add(number=1)) == {"version": 3, "created": True}


def test_numbers_are_not_used_again_after_a_deletion() -> None:
    """An old job or model names `iris` version 2: that must never become other data."""
    cluster = Cluster(*BEGUN, add(number=1), add(number=2))
    assert kinds(cluster.accept(DeleteDataset("iris"))) == ["dataset.deleted"]
    assert current_version(cluster.state, "iris") is None
    assert cluster.value(add(number=3)) == {"version": 3, "created": True}
    cluster.accept(DeleteDataset("iris"))
    assert cluster.value(add(number=4)) == {"version": 4, "created": True}


def test_data_in_use_stays() -> None:
    cluster = Cluster(*QUEUED)
    assert jobs_using(cluster.state, "iris") == (JOB,)
    refused = cluster.reject(DeleteDataset("iris"))
    assert refused.code == "in_use"
    assert JOB in refused.reason
    cluster.accept(CancelJob(JOB))
    cluster.accept(DeleteDataset("iris"))
    assert cluster.reject(RetryJob(JOB)).code == "not_found", "its data is gone"


def test_deleting_what_is_not_there() -> None:
    assert Cluster().reject(DeleteDataset("iris")).code == "not_found"
    assert Cluster().reject(DeleteDataset("no such name")).code == "invalid"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ".hidden"},
        {"name": "a/b"},
        {"name": "n" * 129},
        {"digest": "0" * 63},
        {"digest": "G" * 64},
        {"rows": 0},
        {"rows": 11},
        {"bytes": -1},
        {"parts": ()},
        {"target": ""},
        {"task": "clustering"},
        {"detail": Json(b"")},
        {"detail": Json(b"[]")},
    ],
)
def test_what_is_no_dataset(changes: dict[str, object]) -> None:
    assert Cluster(*BEGUN).reject(replace(add(), **changes)).code == "invalid"


def test_a_part_needs_its_holders_named() -> None:
    unnamed = replace(add(), blobs=(HeldBlob(digest(2), 100, (A,)),))
    assert Cluster(*BEGUN).reject(unnamed).code == "conflict"
