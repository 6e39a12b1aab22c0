"""Questions about a state, and the figures of a job's progress and standings."""

import math
import sys

import msgspec
import pytest
from hypothesis import example, given, strategies as st
from immutables import Map
from msgspec.structs import replace

from consensus.messages import (
    Accepted,
    BeginEpoch,
    CancelJob,
    Outcome,
    RecordFolds,
    Rejected,
    SetMemberStatus,
    StartFolds,
)
from consensus.progress import Progress, candidates_of, fold_scores, job_progress, natural, standings
from consensus.queries import (
    active_members,
    available_holders,
    jobs_by_age,
    outcome_of,
    published_version,
    remember,
    unfinished_jobs,
)
from consensus.state import (
    Candidate,
    CandidateId,
    CandidateState,
    ClusterState,
    FoldResult,
    JobId,
    Json,
    MemberStatus,
)
from tests.unit.consensus.facts import (
    BEGUN,
    FIRST,
    JOB,
    PUBLISHED,
    RUNNING,
    SECOND,
    A,
    B,
    Cluster,
    add,
    digest,
    done,
    failed,
    finish,
    submit,
    unit,
)


def candidate(number: int, *scores: object, state: CandidateState = CandidateState.OK) -> Candidate:
    folds = {
        fold: FoldResult(fold, Json(msgspec.json.encode({"m": score})), 1.0 + fold, 2.0, 1)
        for fold, score in enumerate(scores)
    }
    return Candidate(CandidateId(f"0.{number}"), 0, "Ridge", Json(b"{}"), 0, 3, state, folds=Map(folds))


# ---------------------------------------------------------------- state
def test_only_active_members_take_part() -> None:
    cluster = Cluster(*BEGUN, SetMemberStatus(A, MemberStatus.DRAINING))
    assert [found.id for found in active_members(cluster.state)] == [B]


def test_nobody_holds_an_unknown_blob() -> None:
    assert available_holders(ClusterState(), digest(1)) == ()


def test_jobs_come_oldest_first_and_unfinished_ones_alone() -> None:
    cluster = Cluster(*BEGUN, add(), submit(JobId("z")), submit(JobId("a")), submit(JobId("m")), CancelJob(JobId("a")))
    assert [job.id for job in jobs_by_age(cluster.state)] == ["z", "a", "m"]
    assert [job.id for job in unfinished_jobs(cluster.state)] == ["z", "m"]


def test_what_a_candidate_became() -> None:
    state = Cluster(*PUBLISHED).state
    found = published_version(state, JOB, FIRST)
    assert found is not None
    assert found.version == 1
    assert published_version(state, JOB, SECOND) is None


@pytest.mark.parametrize(
    "outcome", [Accepted(), Accepted(Json(b'{"version":1}')), Rejected("conflict", 'it is "taken" – by ü')]
)
def test_an_outcome_is_remembered_whole(outcome: Outcome) -> None:
    assert outcome_of(remember(7, outcome)) == outcome


# ---------------------------------------------------------------- progress
def test_progress_counts_folds_by_what_became_of_them() -> None:
    cluster = Cluster(
        *BEGUN, add(), add("wine", 2), submit(units=(unit(), unit("wine")), candidates=2, folds=3),
    )  # fmt: skip
    third = CandidateId("1.1")
    cluster.accept(StartFolds(1, JOB, ((FIRST, 0), (FIRST, 1), (SECOND, 0), (third, 0))))
    cluster.accept(RecordFolds(1, JOB, (done(FIRST, 0),)))
    cluster.accept(failed(SECOND, 0))
    assert job_progress(cluster.job, 1) == Progress(12, 1, 3, 0, 2, 0.25)
    assert job_progress(cluster.job, 1, unit=1) == Progress(6, 0, 0, 0, 1, 0.0)
    cluster.accept(finish(0, error="enough"))
    assert job_progress(cluster.job, 1, unit=0) == Progress(6, 1, 3, 2, 0, 0.25)
    assert job_progress(cluster.job, 1, unit=0).fraction == 1.0
    assert job_progress(cluster.job, 1).remaining == 6


def test_folds_of_an_older_epoch_do_not_run_any_more() -> None:
    cluster = Cluster(*RUNNING, BeginEpoch(2, B))
    assert job_progress(cluster.job, 1).running == 3
    assert job_progress(cluster.job, 2).running == 0


def test_nothing_to_do_is_done() -> None:
    assert Progress().fraction == 1.0


# ---------------------------------------------------------------- standings
@pytest.mark.parametrize(("greater", "order"), [(True, ["0.2", "0.3", "0.10"]), (False, ["0.10", "0.3", "0.2"])])
def test_the_caller_says_what_is_better(greater: bool, order: list[str]) -> None:
    rows = standings(
        [candidate(10, 0.1, 0.1, 0.1), candidate(2, 0.9, 0.9, 0.9), candidate(3, 0.5, 0.5, 0.5)],
        "m",
        greater_is_better=greater,
    )
    assert [row.candidate.id for row in rows] == order
    assert [row.rank for row in rows] == [1, 2, 3]


def test_every_candidate_has_a_row_and_only_finished_ones_a_rank() -> None:
    rows = standings(
        [
            candidate(1, state=CandidateState.SKIPPED),
            candidate(2, 0.99, state=CandidateState.FAILED),
            candidate(3, 0.99, state=CandidateState.PENDING),
            candidate(4, None, None, None),
            candidate(5, 0.1, 0.1, 0.1),
        ],
        "m",
        greater_is_better=True,
    )
    assert [(row.candidate.id, row.rank) for row in rows] == [
        ("0.5", 1),
        ("0.4", 2),
        ("0.3", None),
        ("0.2", None),
        ("0.1", None),
    ]
    assert rows[1].mean is None
    assert rows[2].mean == 0.99


def test_equal_means_are_told_apart_by_deviation_then_by_number() -> None:
    rows = standings(
        [candidate(10, 0.5, 0.5), candidate(9, 0.5, 0.5), candidate(1, 0.4, 0.6)], "m", greater_is_better=True
    )
    assert [row.candidate.id for row in rows] == ["0.9", "0.10", "0.1"]
    assert rows[2].std == pytest.approx(0.1)
    assert (rows[0].fit_seconds, rows[0].predict_us_per_row) == (1.5, 2.0)


def test_scores_that_are_no_numbers_are_left_out() -> None:
    assert fold_scores(candidate(1, 0.5, None, 0.25), "m") == (0.5, 0.25)
    assert fold_scores(candidate(1, "high", 0.5), "m") == (0.5,)
    assert fold_scores(candidate(1, 0.5), "other") == ()
    broken = FoldResult(0, Json(b"{nonsense}"), 1.0, 1.0, 1)
    assert fold_scores(replace(candidate(1), folds=Map({0: broken})), "m") == ()


LARGEST = sys.float_info.max


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6), st.booleans())
@example([LARGEST] * 3, False)
@example([-LARGEST] * 5, True)
def test_no_scores_break_the_standings(scores: list[float], greater: bool) -> None:
    (row,) = standings([candidate(1, *scores)], "m", greater_is_better=greater)
    assert row.mean is not None
    assert math.isfinite(row.mean)
    assert min(scores) <= row.mean <= max(scores) or row.mean == pytest.approx(scores[0])
    assert row.std is not None
    assert row.std >= 0


@given(st.permutations([LARGEST, LARGEST, -LARGEST, 3.0, -1e300]))
def test_the_mean_does_not_depend_on_the_order_even_where_a_sum_overflows_in_some(scores: list[float]) -> None:
    (row,) = standings([candidate(1, *scores)], "m", greater_is_better=True)
    assert row.mean == (LARGEST - 1e300) / 5


@given(st.permutations([candidate(number, number % 3, number % 2) for number in range(12)]))
def test_the_order_does_not_depend_on_that_of_the_map(found: list[Candidate]) -> None:
    expected = standings(sorted(found, key=lambda one: one.id), "m", greater_is_better=True)
    assert standings(found, "m", greater_is_better=True) == expected


def test_candidates_come_in_the_order_of_their_numbers() -> None:
    job = Cluster(*BEGUN, add(), submit(candidates=11)).job
    assert [one.id for one in candidates_of(job, 0)] == [f"0.{number}" for number in range(1, 12)]
    assert candidates_of(job, 1) == ()
    assert sorted(["1.2", "a.1", "1.10", "1"], key=lambda name: natural(CandidateId(name))) == [
        "1",
        "1.2",
        "1.10",
        "a.1",
    ]
