"""Models: published once a candidate; aliases move by compare-and-set, remember, drop and roll back."""

import pytest
from msgspec.structs import replace

from consensus.messages import Command, DropAlias, MoveAlias, RollBackAlias
from consensus.queries import aliases_of, find_version, published_version
from consensus.rules.models import HISTORY_MOVES
from consensus.state import JobId, Json
from tests.unit.consensus.facts import (
    FIRST,
    FITTED,
    JOB,
    PUBLISHED,
    RUNNING,
    SECOND,
    Cluster,
    digest,
    fitted,
    kinds,
    publish,
)

TWO = (*PUBLISHED, fitted(SECOND), publish(SECOND, 901, move=False))


def test_a_candidate_becomes_a_version_and_the_alias_moves_with_it() -> None:
    cluster = Cluster(*FITTED)
    applied = cluster.accept(publish())
    assert kinds(applied) == ["model.published", "alias.moved"]
    version = find_version(cluster.state, "iris", alias="production")
    assert version is not None
    assert (version.version, version.job, version.candidate, version.digest) == (1, JOB, FIRST, digest(900))
    assert cluster.candidate().final == publish().final
    assert published_version(cluster.state, JOB, FIRST) == version


def test_published_twice_is_published_once_even_under_another_name() -> None:
    cluster = Cluster(*PUBLISHED)
    again = {"version": 1, "created": False, "alias_moved": False}
    assert cluster.value(publish()) == again
    assert cluster.value(publish(model="other", number=902)) == again
    assert list(cluster.state.models) == ["iris"]
    assert digest(902) not in cluster.state.blobs


def test_the_next_candidate_is_the_next_version() -> None:
    cluster = Cluster(*TWO)
    assert cluster.state.models["iris"].latest == 2
    assert dict(cluster.state.models["iris"].aliases) == {"production": 1}
    assert [aliases_of(cluster.state, "iris", number) for number in (1, 2, 3)] == [("production",), (), ()]


def test_only_a_candidate_with_all_its_folds_is_published() -> None:
    assert Cluster(*RUNNING).reject(publish()).code == "conflict"
    assert Cluster(*FITTED).reject(publish(SECOND)).code == "conflict"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"model": "a b"}, "invalid"),
        ({"alias": ""}, "invalid"),
        ({"digest": digest(1)}, "invalid"),
        ({"digest": "x"}, "invalid"),
        ({"bytes": 0}, "invalid"),
        ({"bytes": 701}, "invalid"),
        ({"engine": "pickle"}, "invalid"),
        ({"task": "x"}, "invalid"),
        ({"detail": Json(b"")}, "invalid"),
        ({"final": Json(b"")}, "invalid"),
        ({"job": JobId("nope")}, "not_found"),
    ],
)
def test_what_is_no_model(changes: dict[str, object], code: str) -> None:
    assert Cluster(*FITTED).reject(replace(publish(), **changes)).code == code


def test_moving_back_and_forth_leaves_a_history() -> None:
    cluster = Cluster(*TWO)
    assert cluster.value(MoveAlias("iris", "production", 2, "try it")) == {"version": 2, "previous": 1}
    assert cluster.value(RollBackAlias("iris", "production")) == {"version": 1, "previous": 2}
    assert cluster.value(RollBackAlias("iris", "production")) == {"version": 2, "previous": 1}
    moves = cluster.state.models["iris"].history
    assert [(move.previous, move.version, move.comment) for move in moves] == [
        (0, 1, "published"),
        (1, 2, "try it"),
        (2, 1, "rolled back"),
        (1, 2, "rolled back"),
    ]
    assert moves[1].by == "ann"


def test_moving_to_where_it_is_leaves_no_trace() -> None:
    cluster = Cluster(*TWO)
    assert cluster.accept(MoveAlias("iris", "production", 1)).events == ()
    assert len(cluster.state.models["iris"].history) == 1


@pytest.mark.parametrize(("expected", "moves"), [(None, True), (1, True), (0, False), (2, False)])
def test_compare_and_set(expected: int | None, moves: bool) -> None:
    cluster = Cluster(*TWO)
    command = MoveAlias("iris", "production", 2, expected=expected)
    if moves:
        cluster.accept(command)
    else:
        assert cluster.reject(command).code == "conflict"


def test_expecting_no_alias() -> None:
    cluster = Cluster(*TWO)
    cluster.accept(MoveAlias("iris", "next", 2, expected=0))
    assert cluster.reject(MoveAlias("iris", "next", 1, expected=0)).code == "conflict"


def test_a_dropped_alias_comes_back_by_a_rollback() -> None:
    cluster = Cluster(*TWO)
    assert kinds(cluster.accept(DropAlias("iris", "production"))) == ["alias.dropped"]
    assert find_version(cluster.state, "iris", alias="production") is None
    cluster.accept(RollBackAlias("iris", "production"))
    assert dict(cluster.state.models["iris"].aliases) == {"production": 1}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (MoveAlias("wine", "production", 1), "not_found"),
        (MoveAlias("iris", "production", 3), "not_found"),
        (MoveAlias("iris", "production", 0), "not_found"),
        (MoveAlias("iris", "a b", 1), "invalid"),
        (MoveAlias("iris", "production", 2, "c" * 1001), "invalid"),
        (DropAlias("iris", "next"), "not_found"),
        (DropAlias("wine", "production"), "not_found"),
        (RollBackAlias("iris", "next"), "not_found"),
        (RollBackAlias("wine", "production"), "not_found"),
        (RollBackAlias("iris", "production"), "conflict"),
    ],
)
def test_moves_that_cannot_be(command: Command, code: str) -> None:
    assert Cluster(*TWO).reject(command).code == code


def test_the_history_is_bounded() -> None:
    cluster = Cluster(*TWO)
    for _ in range(HISTORY_MOVES):
        cluster.accept(RollBackAlias("iris", "production")) if len(
            cluster.state.models["iris"].history
        ) > 1 else cluster.accept(MoveAlias("iris", "production", 2))
    assert len(cluster.state.models["iris"].history) == HISTORY_MOVES


def test_versions_are_found_by_number_alias_or_as_the_newest() -> None:
    state = Cluster(*TWO).state
    found = [
        find_version(state, "iris"),
        find_version(state, "iris", 1),
        find_version(state, "iris", alias="production"),
    ]
    assert [version.version for version in found if version] == [2, 1, 1]
    assert find_version(state, "wine") is None
    assert find_version(state, "iris", 9) is None
    assert find_version(state, "iris", alias="nope") is None
