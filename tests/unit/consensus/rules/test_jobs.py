"""A job's life: the table of transitions, folds finished once, epochs that fence, cancel and retry."""

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from consensus.messages import (
    BeginEpoch,
    CancelJob,
    Command,
    FoldDone,
    FoldFailed,
    RecordFinal,
    RecordFolds,
    RetryJob,
    StartFolds,
)
from consensus.rules.candidates import TRANSITIONS as CANDIDATE_TRANSITIONS
from consensus.rules.jobs import TRANSITIONS
from consensus.state import CandidateId, CandidateState, JobId, JobState, Json, Unit
from tests.unit.consensus.facts import (
    BEGUN,
    FIRST,
    FITTED,
    JOB,
    PUBLISHED,
    QUEUED,
    RUNNING,
    SECOND,
    A,
    B,
    Cluster,
    add,
    done,
    failed,
    finish,
    fitted,
    kinds,
    publish,
    start,
    submit,
    unit,
)

CANCELLED = (*RUNNING, CancelJob(JOB))
SUCCEEDED = (*FITTED, finish(best=FIRST))
FAILED = (*RUNNING, failed(FIRST), failed(SECOND), finish(error="all failed"))
FINAL = Json(b'{"holdout":{"roc_auc":0.5}}')


def in_state(state: JobState) -> Cluster:
    return Cluster(*{
        JobState.QUEUED: QUEUED, JobState.RUNNING: RUNNING, JobState.CANCELLED: CANCELLED,
        JobState.SUCCEEDED: SUCCEEDED, JobState.FAILED: FAILED,
    }[state])  # fmt: skip


STEPS: Mapping[str, tuple[Command, Mapping[JobState, JobState]]] = {
    "start": (start(), {JobState.QUEUED: JobState.RUNNING, JobState.RUNNING: JobState.RUNNING}),
    "cancel": (CancelJob(JOB), {JobState.QUEUED: JobState.CANCELLED, JobState.RUNNING: JobState.CANCELLED}),
    "retry": (RetryJob(JOB), {JobState.FAILED: JobState.QUEUED, JobState.CANCELLED: JobState.QUEUED}),
    "record": (failed(SECOND, 1), {JobState.QUEUED: JobState.QUEUED, JobState.RUNNING: JobState.RUNNING}),
    "finish": (finish(error="no"), {JobState.QUEUED: JobState.FAILED, JobState.RUNNING: JobState.FAILED}),
}


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize("step", list(STEPS))
def test_every_step_from_every_state(state: JobState, step: str) -> None:
    cluster = in_state(state)
    assert cluster.job.state is state
    command, leads_to = STEPS[step]
    if state in leads_to:
        cluster.accept(command)
        assert cluster.job.state is leads_to[state]
    else:
        assert cluster.reject(command).code == "conflict"


def test_the_tables_name_every_state() -> None:
    assert set(TRANSITIONS) == set(JobState)
    assert set(CANDIDATE_TRANSITIONS) == set(CandidateState)
    assert TRANSITIONS[JobState.SUCCEEDED] == frozenset()


# ---------------------------------------------------------------- submitting
def test_a_submitted_job_waits() -> None:
    cluster = Cluster(*BEGUN, add())
    applied = cluster.accept(submit(), actor="bob")
    assert kinds(applied) == ["job.submitted"]
    assert (cluster.job.state, cluster.job.created_by, cluster.job.epochs) == (JobState.QUEUED, "bob", ())
    assert {candidate.state for candidate in cluster.job.candidates.values()} == {CandidateState.PENDING}
    assert cluster.reject(submit()).code == "conflict"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"job": JobId("a b")}, "invalid"),
        ({"name": "n" * 1001}, "invalid"),
        ({"spec": Json(b"")}, "invalid"),
        ({"units": ()}, "invalid"),
        ({"candidates": ()}, "conflict"),  # a tallied job, which level 1 does not know: see test_tallied
        ({"candidates": submit().candidates * 2}, "invalid"),
        ({"units": (unit("wine"),)}, "not_found"),
        ({"units": (unit(version=2),)}, "not_found"),
        ({"units": (unit(), unit())}, "invalid"),
        ({"units": (replace(unit(), done=True),)}, "invalid"),
        ({"units": (replace(unit(), best=FIRST),)}, "invalid"),
        ({"units": (replace(unit(), task="clustering"),)}, "invalid"),
        ({"units": (replace(unit(), metric=""),)}, "invalid"),
        ({"candidates": (replace(submit().candidates[0], unit=1),)}, "invalid"),
        ({"candidates": (replace(submit().candidates[0], unit=-1),)}, "invalid"),
        ({"candidates": (replace(submit().candidates[0], folds_total=0),)}, "invalid"),
        ({"candidates": (replace(submit().candidates[0], seed=-1),)}, "invalid"),
        ({"candidates": (replace(submit().candidates[0], estimator="os.system('x')"),)}, "invalid"),
        ({"candidates": (replace(submit().candidates[0], params=Json(b"null")),)}, "invalid"),
    ],
)
def test_what_is_no_job(changes: dict[str, object], code: str) -> None:
    assert Cluster(*BEGUN, add()).reject(replace(submit(), **changes)).code == code


# ---------------------------------------------------------------- folds
def test_starting_tells_once_and_marks_the_folds() -> None:
    cluster = Cluster(*QUEUED)
    assert kinds(cluster.accept(start((FIRST, 0)))) == ["job.started"]
    assert kinds(cluster.accept(start((FIRST, 1)))) == []
    assert dict(cluster.candidate().running) == {0: 1, 1: 1}
    assert cluster.job.epochs == (1,)
    assert cluster.job.started_at == 1006.0


def test_a_later_epoch_resumes() -> None:
    cluster = Cluster(*RUNNING, BeginEpoch(2, B))
    assert kinds(cluster.accept(start((FIRST, 0), epoch=2))) == ["job.resumed"]
    assert cluster.job.epochs == (1, 2)
    assert dict(cluster.candidate().running) == {0: 2, 1: 1}


def test_all_folds_make_a_candidate_ok() -> None:
    cluster = Cluster(*RUNNING, RecordFolds(1, JOB, (done(FIRST, 0),)))
    assert cluster.candidate().state is CandidateState.PENDING
    assert set(cluster.candidate().running) == {1}
    cluster.accept(RecordFolds(1, JOB, (done(FIRST, 1),)))
    assert cluster.candidate().state is CandidateState.OK
    assert len(cluster.candidate().running) == 0
    assert cluster.candidate().folds[0].epoch == 1


def test_a_finished_fold_is_never_overwritten_started_or_failed() -> None:
    cluster = Cluster(*RUNNING, RecordFolds(1, JOB, (done(FIRST, 0, 0.9),)), BeginEpoch(2, B))
    kept = cluster.candidate().folds[0]
    late = RecordFolds(2, JOB, (done(FIRST, 0, 0.1),), (FoldFailed(FIRST, 0, "late"),))
    assert cluster.accept(late).events == ()
    cluster.accept(start((FIRST, 0), epoch=2))
    assert cluster.candidate().folds[0] == kept
    assert cluster.candidate().state is CandidateState.PENDING
    assert set(cluster.candidate().running) == {1}


def test_one_failed_fold_fails_the_candidate_with_the_first_reason() -> None:
    cluster = Cluster(*RUNNING, failed(FIRST, 0, reason="ValueError: no"), failed(FIRST, 1, reason="later"))
    assert cluster.candidate().state is CandidateState.FAILED
    assert cluster.candidate().reason == "ValueError: no"
    assert len(cluster.candidate().running) == 0
    cluster.accept(start((FIRST, 1)))
    assert len(cluster.candidate().running) == 0, "nobody waits for it any more"


def test_a_reason_is_shortened_and_never_missing() -> None:
    cluster = Cluster(*RUNNING, failed(FIRST, reason="x" * 5000), failed(SECOND, reason=""))
    assert len(cluster.candidate().reason) == 1000
    assert cluster.candidate(SECOND).reason


EFFECTS: tuple[Command, ...] = (
    start((FIRST, 0)),
    fitted(SECOND),
    failed(SECOND),
    RecordFinal(1, JOB, FIRST, FINAL),
    publish(),
    finish(best=FIRST),
)


@pytest.mark.parametrize("command", EFFECTS, ids=lambda command: type(command).__name__)
def test_an_older_epoch_changes_nothing(command: Command) -> None:
    assert Cluster(*FITTED, BeginEpoch(2, B)).reject(command).code == "stale_epoch"


@pytest.mark.parametrize("command", EFFECTS, ids=lambda command: type(command).__name__)
def test_a_cancelled_job_changes_no_more(command: Command) -> None:
    cluster = Cluster(*FITTED, CancelJob(JOB))
    assert cluster.reject(command).code == "conflict"
    assert all(len(candidate.running) == 0 for candidate in cluster.job.candidates.values())


@pytest.mark.parametrize("epoch", [0, 2, -1])
def test_no_epoch_but_the_current_one(epoch: int) -> None:
    assert Cluster(*RUNNING).reject(fitted(FIRST, epoch=epoch)).code == "stale_epoch"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (StartFolds(1, JobId("nope"), ()), "not_found"),
        (start((CandidateId("9.9"), 0)), "not_found"),
        (start((FIRST, 2)), "invalid"),
        (start((FIRST, -1)), "invalid"),
        (RecordFolds(1, JOB, (done(FIRST, 7),)), "invalid"),
        (RecordFolds(1, JOB, (FoldDone(FIRST, 0, Json(b""), 1.0, 1.0),)), "invalid"),
        (RecordFolds(1, JOB, (FoldDone(FIRST, 0, Json(b"{}"), float("nan"), 1.0),)), "invalid"),
        (RecordFolds(1, JOB, (FoldDone(FIRST, 0, Json(b"{}"), 1.0, float("inf")),)), "invalid"),
        (RecordFolds(1, JOB, (done(FIRST, 0), done(CandidateId("x"), 0))), "not_found"),
        (RecordFinal(1, JOB, FIRST, FINAL), "conflict"),
        (finish(number=1), "not_found"),
        (finish(number=-1), "not_found"),
        (finish(best="x"), "not_found"),
        (finish(best=FIRST), "conflict"),
    ],
)
def test_a_report_that_makes_no_sense_changes_nothing(command: Command, code: str) -> None:
    assert Cluster(*RUNNING).reject(command).code == code


# ---------------------------------------------------------------- the end
def two_units() -> tuple[Command, ...]:
    units: tuple[Unit, ...] = (unit(), unit("wine"))
    return (*BEGUN, add(), add("wine", 2), submit(units=units), start(), fitted(FIRST))


def test_a_job_ends_with_its_last_unit_and_succeeds_with_one_best() -> None:
    cluster = Cluster(*two_units())
    assert kinds(cluster.accept(finish(1, error="constant target"))) == ["job.unit_finished"]
    assert cluster.job.state is JobState.RUNNING
    applied = cluster.accept(finish(0, best=FIRST))
    assert kinds(applied) == ["job.unit_finished", "job.ended"]
    assert (cluster.job.state, cluster.job.error) == (JobState.SUCCEEDED, "")
    assert applied.events[1].detail == b'{"state":"succeeded","error":""}'
    assert cluster.candidate(SECOND).state is CandidateState.SKIPPED


def test_a_job_without_any_best_fails_and_says_why() -> None:
    cluster = Cluster(*two_units(), finish(0), finish(1, error="constant target"))
    assert cluster.job.state is JobState.FAILED
    assert cluster.job.error == "iris: no candidate could be fitted; wine: constant target"


def test_nothing_of_a_finished_unit_changes() -> None:
    cluster = Cluster(*two_units(), finish(0, best=FIRST))
    before = cluster.job
    assert cluster.accept(RecordFolds(1, JOB, (done(SECOND, 0),))).events == ()
    cluster.accept(start((SECOND, 0)))
    cluster.accept(finish(0, error="again"))
    assert cluster.job == before


def test_the_best_belongs_to_the_unit() -> None:
    assert Cluster(*two_units()).reject(finish(1, best=FIRST)).code == "invalid"


def test_a_job_that_never_started_can_fail() -> None:
    cluster = Cluster(*QUEUED)
    assert kinds(cluster.accept(finish(error="data lost"))) == ["job.started", "job.unit_finished", "job.ended"]


def test_a_final_result_is_kept() -> None:
    cluster = Cluster(*FITTED, RecordFinal(1, JOB, FIRST, FINAL))
    assert cluster.candidate().final == FINAL


# ---------------------------------------------------------------- retry
def test_a_retry_keeps_finished_folds_and_opens_the_rest() -> None:
    cluster = Cluster(*RUNNING, RecordFolds(1, JOB, (done(FIRST, 0),)), failed(FIRST, 1), finish(error="no"))
    assert kinds(cluster.accept(RetryJob(JOB))) == ["job.retried"]
    assert (cluster.job.state, cluster.job.ended_at, cluster.job.error) == (JobState.QUEUED, 0.0, "")
    assert not cluster.job.units[0].done
    assert set(cluster.candidate().folds) == {0}
    assert {candidate.state for candidate in cluster.job.candidates.values()} == {CandidateState.PENDING}
    assert kinds(cluster.accept(start((FIRST, 1)))) == ["job.resumed"]


def test_a_failed_candidate_whose_folds_came_in_all_the_same_is_ok_after_a_retry() -> None:
    cluster = Cluster(*RUNNING, failed(FIRST, 0), fitted(FIRST), CancelJob(JOB))
    assert cluster.candidate().state is CandidateState.FAILED
    cluster.accept(RetryJob(JOB))
    assert cluster.candidate().state is CandidateState.OK


def test_a_retry_leaves_finished_units_alone() -> None:
    cluster = Cluster(
        *two_units(), RecordFinal(1, JOB, FIRST, FINAL), finish(0, best=FIRST), CancelJob(JOB), RetryJob(JOB)
    )
    assert [part.done for part in cluster.job.units] == [True, False]
    assert cluster.candidate().final == FINAL
    assert cluster.candidate(SECOND).state is CandidateState.SKIPPED
    cluster.accept(finish(1, error="no"))
    assert cluster.job.state is JobState.SUCCEEDED


def test_a_retried_job_refits_but_publishes_the_same_version() -> None:
    cluster = Cluster(*PUBLISHED, CancelJob(JOB), RetryJob(JOB))
    assert cluster.candidate().final == b""
    assert cluster.value(publish(number=901)) == {"version": 1, "created": False, "alias_moved": False}
    assert cluster.candidate().final != b""


def test_a_retry_in_a_later_epoch() -> None:
    cluster = Cluster(*FAILED, BeginEpoch(2, A), RetryJob(JOB), start((FIRST, 0), epoch=2), fitted(FIRST, epoch=2))
    assert cluster.job.epochs == (1, 2)
    assert cluster.candidate().state is CandidateState.OK
