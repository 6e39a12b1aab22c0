"""Tallied jobs: candidates proposed in chunks, counts that are always right, segments, sealing, deletion, retries."""

import msgspec
import pytest
from msgspec.structs import replace

from consensus.codec import encode_state
from consensus.levels import needed, stamped
from consensus.messages import (
    AddCandidates,
    BeginEpoch,
    CancelJob,
    Command,
    DeleteJob,
    Entry,
    FoldFailed,
    FoldTally,
    HeldBlob,
    JoinMember,
    NewCandidate,
    RaiseLevel,
    RecordFolds,
    RemoveMember,
    RetryJob,
    SealJob,
)
from consensus.progress import best_so_far, is_partial, job_progress, open_candidates, standings
from consensus.queries import referenced_digests
from consensus.rules.machine import apply
from consensus.rules.tallies import recounted
from consensus.state import CandidateId, CandidateState, CommandId, Digest, JobState, Tally
from tests.unit.consensus.facts import (
    EMPTY,
    JOB,
    A,
    B,
    Cluster,
    add,
    digest,
    failed,
    finish,
    fitted,
    kinds,
    member,
    publish,
    start,
    submit,
    unit,
)

FOLDS = 2
LEVELED = (JoinMember(member(A, level=2)), JoinMember(member(B, level=2)), RaiseLevel(2), BeginEpoch(1, A), add())
TALLIED = replace(submit(units=(replace(unit(), tally=Tally(4, FOLDS, greater_is_better=True)),)), candidates=())
"""One unit; four candidates of two folds are to be proposed."""


def name(number: int) -> CandidateId:
    return CandidateId(f"0.{number}")


def propose(first: int, count: int, *, complete: bool = False, epoch: int = 1) -> AddCandidates:
    made = tuple(NewCandidate(name(n), 0, "Ridge", EMPTY, n, FOLDS) for n in range(first, first + count))
    return AddCandidates(epoch, JOB, 0, first, made, complete)


def tallied(number: int, *scores: float | None, epoch: int = 1, segment: int = 0) -> RecordFolds:
    made = tuple(FoldTally(name(number), fold, score, 0.25, 1.5) for fold, score in enumerate(scores))
    return RecordFolds(epoch, JOB, tallies=made, segment=blob(segment) if segment else None)


def blob(number: int, *holders: object) -> HeldBlob:
    return HeldBlob(digest(number), 100, holders or (A,))  # type: ignore[arg-type]


def seal(cluster: Cluster, number: int = 800, *keep: CandidateId) -> SealJob:
    return SealJob(JOB, cluster.job.ended_at, blob(number), keep)


PROPOSED = (*LEVELED, TALLIED, propose(0, 4, complete=True))
MEASURED = (*PROPOSED, tallied(0, 0.5, 0.7, segment=700), tallied(1, 0.9, 0.9, segment=701))
ENDED = (*MEASURED, finish(best=name(1)))


def counts(cluster: Cluster) -> Tally:
    found = cluster.job.units[0].tally
    assert found is not None
    candidates = cluster.job.candidates.values()
    if not cluster.job.sealed:
        again = recounted(found, candidates)
        assert replace(again, fit_seconds=found.fit_seconds, running=found.running) == found, "a tally is a count"
    return found


# ---------------------------------------------------------------- candidates
def test_candidates_come_in_chunks_and_those_that_are_there_change_nothing() -> None:
    cluster = Cluster(*LEVELED, TALLIED)
    assert job_progress(cluster.job, 1).total == 8, "what is expected counts before it is proposed"
    assert kinds(cluster.accept(propose(0, 2))) == ["job.candidates_added"]
    assert kinds(cluster.accept(propose(0, 3))) == ["job.candidates_added"]
    assert kinds(cluster.accept(propose(0, 3))) == []
    assert [c.id for c in open_candidates(cluster.job, 0)] == [name(0), name(1), name(2)]
    cluster.accept(propose(3, 0, complete=True))
    assert counts(cluster).complete
    assert job_progress(cluster.job, 1).total == 6, "no more will come"
    assert kinds(cluster.accept(propose(3, 1))) == []


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (propose(1, 1), "conflict"),
        (replace(propose(0, 1), unit=1), "not_found"),
        (replace(propose(0, 1), unit=-1), "not_found"),
        (replace(propose(0, 1), rung=-1), "invalid"),
        (replace(propose(0, 1), epoch=2), "stale_epoch"),
        (replace(propose(0, 1), candidates=propose(1, 1).candidates), "invalid"),
        (replace(propose(0, 1), candidates=(replace(propose(0, 1).candidates[0], folds_total=9),)), "invalid"),
        (replace(propose(0, 1), candidates=(replace(propose(0, 1).candidates[0], estimator="a b"),)), "invalid"),
    ],
)
def test_what_is_no_proposal(command: AddCandidates, code: str) -> None:
    assert Cluster(*LEVELED, TALLIED).reject(command).code == code


def test_a_job_of_each_form_takes_what_fits_it() -> None:
    whole = Cluster(*LEVELED, submit(), start())
    assert whole.reject(AddCandidates(1, JOB, 0, 0, (), complete=True)).code == "invalid"
    assert whole.reject(RecordFolds(1, JOB, tallies=(FoldTally(name(1), 0, 1.0, 1.0, 1.0),))).code == "invalid"
    assert Cluster(*PROPOSED).reject(fitted(name(0))).code == "invalid"


@pytest.mark.parametrize("tally", [None, Tally(0, 2, True), Tally(4, 0, True), Tally(4, 2, True, done=1)])
def test_a_submission_without_candidates_needs_a_fresh_tally(tally: Tally | None) -> None:
    wrong = replace(TALLIED, units=(replace(TALLIED.units[0], tally=tally),))
    assert Cluster(*LEVELED).reject(wrong).code == "invalid"


# ---------------------------------------------------------------- levels
def test_the_new_forms_need_level_two_and_the_old_ones_do_not() -> None:
    two = (
        TALLIED,
        propose(0, 1),
        tallied(0, 1.0),
        tallied(0, segment=1),
        SealJob(JOB, 1.0, blob(1), ()),
        DeleteJob(JOB),
    )
    one = (submit(), fitted(name(1)), failed(name(1)), CancelJob(JOB))
    assert [needed(command) for command in two] == [2] * 6
    assert [needed(command) for command in one] == [1] * 4
    cluster = Cluster(JoinMember(member(A, level=2)), add())
    assert "level 1 is in force" in str(apply(cluster.state, 9, stamped(CommandId("x"), 1.0, "", TALLIED)).outcome)
    forged = Entry(CommandId("y"), 1.0, "", DeleteJob(JOB), level=1)
    assert "its entry says 1" in str(apply(cluster.state, 9, forged).outcome)


def test_a_submission_of_level_one_has_no_tally_whatever_it_says() -> None:
    both = replace(submit(), units=TALLIED.units)
    assert Cluster(*LEVELED, both).job.units[0].tally is None


# ---------------------------------------------------------------- results
def test_folds_are_counted_as_they_end() -> None:
    cluster = Cluster(*PROPOSED, start((name(0), 0), (name(0), 1), (name(1), 0)))
    assert (counts(cluster).running, job_progress(cluster.job, 1).running) == (3, 3)
    cluster.accept(tallied(0, 0.5, 0.7))
    found = counts(cluster)
    assert (found.done, found.running, found.fit_seconds, found.best, found.best_score) == (2, 1, 0.5, 0, 0.6)
    assert cluster.candidate(name(0)).state is CandidateState.OK
    cluster.accept(failed(name(1), 0))
    found = counts(cluster)
    assert (found.failed, found.running) == (2, 0)
    assert [c.id for c in open_candidates(cluster.job, 0)] == [name(2), name(3)]
    cluster.accept(tallied(2, 0.9, None))
    assert best_so_far(cluster.job, 0) == name(2)
    assert [row.candidate.id for row in standings(cluster.job.candidates.values(), "any", greater_is_better=True)] == [
        name(2), name(0), name(3), name(1),
    ]  # fmt: skip
    progress = job_progress(cluster.job, 1)
    assert (progress.total, progress.done, progress.failed, progress.mean_fold_seconds) == (8, 4, 2, 0.25)


def test_the_best_is_by_the_direction_of_the_metric_and_never_a_baseline() -> None:
    down = replace(TALLIED, units=(replace(TALLIED.units[0], tally=Tally(3, FOLDS, greater_is_better=False)),))
    chunk = propose(0, 3)
    baseline = (replace(chunk.candidates[0], baseline=True), *chunk.candidates[1:])
    cluster = Cluster(*LEVELED, down, replace(chunk, candidates=baseline))
    cluster.accept(tallied(0, 0.1, 0.1))
    assert best_so_far(cluster.job, 0) is None
    cluster.accept(tallied(1, 0.9, 0.9))
    cluster.accept(tallied(2, 0.8, 0.8))
    assert best_so_far(cluster.job, 0) == name(2)


def test_of_equal_ones_the_first_is_the_best_whichever_ended_first() -> None:
    cluster = Cluster(*PROPOSED, tallied(1, 0.5, 0.7), tallied(0, 0.7, 0.5))
    assert counts(cluster).best == 0
    for command in (CancelJob(JOB), RetryJob(JOB)):
        cluster.accept(command)
    assert counts(cluster).best == 0


def test_a_later_epoch_counts_its_own_folds_as_running() -> None:
    cluster = Cluster(*PROPOSED, start((name(0), 0), (name(0), 1)), BeginEpoch(2, B))
    assert job_progress(cluster.job, 2).running == 0
    cluster.accept(start((name(0), 0), epoch=2))
    assert job_progress(cluster.job, 2).running == 1
    cluster.accept(CancelJob(JOB))
    assert counts(cluster).running == 0


def test_a_finished_fold_is_never_overwritten() -> None:
    cluster = Cluster(*PROPOSED, tallied(0, 0.5), tallied(0, 0.9, 0.7))
    assert dict(cluster.candidate(name(0)).scores) == {0: 0.5, 1: 0.7}
    assert cluster.accept(tallied(0, 0.1, 0.1)).events == ()


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_score_is_a_number_or_none(number: float) -> None:
    assert Cluster(*PROPOSED).reject(tallied(0, number)).code == "invalid"


# ---------------------------------------------------------------- segments
def test_segments_are_referred_to_until_others_replace_them() -> None:
    cluster = Cluster(*MEASURED)
    assert list(cluster.job.segments) == [digest(700), digest(701)]
    assert {digest(700), digest(701)} <= referenced_digests(cluster.state)
    merged = replace(tallied(2, 0.1, 0.2, segment=702), replaces=(digest(700), digest(701)))
    cluster.accept(merged)
    assert list(cluster.job.segments) == [digest(702)]
    assert not {digest(700), digest(701)} & set(cluster.state.blobs)
    assert cluster.state.blobs[digest(702)].holders == (A,)
    assert cluster.reject(replace(tallied(3, 0.1, segment=703), replaces=(digest(700),))).code == "not_found"


def test_a_segment_without_a_holder_is_refused_with_all_that_it_tells() -> None:
    cluster = Cluster(*PROPOSED)
    lost = replace(tallied(0, 0.5), segment=blob(700, "c" * 32))
    assert cluster.reject(lost).code == "conflict"
    assert not cluster.candidate(name(0)).scores


def test_what_tells_nothing_new_leaves_no_segment() -> None:
    cluster = Cluster(*PROPOSED, tallied(0, 0.5, segment=700))
    cluster.accept(tallied(0, 0.5, segment=701))
    assert cluster.job.segments == (digest(700),)
    assert digest(701) not in cluster.state.blobs


def test_a_holder_that_is_removed_is_forgotten_and_the_segment_stays() -> None:
    cluster = Cluster(*PROPOSED, replace(tallied(0, 0.5), segment=blob(700, A, B)), RemoveMember(B))
    assert cluster.state.blobs[digest(700)].holders == (A,)
    assert cluster.job.segments == (digest(700),)


# ---------------------------------------------------------------- sealing
def test_a_sealed_job_keeps_its_best_its_counts_and_one_file() -> None:
    cluster = Cluster(*ENDED)
    before = job_progress(cluster.job, 1)
    assert kinds(cluster.accept(seal(cluster, 800, name(0)))) == ["job.sealed"]
    job = cluster.job
    assert set(job.candidates) == {name(0), name(1)}, "the best stays, told or not"
    assert (job.segments, job.results, job.sealed) == ((), digest(800), True)
    assert job_progress(job, 1) == before
    assert is_partial(job)
    assert set(cluster.state.blobs) == referenced_digests(cluster.state)
    assert digest(700) not in cluster.state.blobs
    assert kinds(cluster.accept(seal(cluster, 801))) == [], "once"
    assert cluster.job.results == digest(800)


@pytest.mark.parametrize(
    ("commands", "changes", "code"),
    [
        (MEASURED, {}, "conflict"),
        (ENDED, {"ended_at": 1.0}, "conflict"),
        (ENDED, {"keep": (name(7),)}, "not_found"),
        (ENDED, {"results": blob(800, "c" * 32)}, "conflict"),
        ((*LEVELED, submit(), CancelJob(JOB)), {}, "conflict"),
    ],
)
def test_what_cannot_be_sealed(commands: tuple[Command, ...], changes: dict[str, object], code: str) -> None:
    cluster = Cluster(*commands)
    assert cluster.reject(replace(seal(cluster), **changes)).code == code


def test_a_file_of_before_a_retry_does_not_seal_what_came_after_it() -> None:
    cluster = Cluster(*MEASURED, CancelJob(JOB))
    late = seal(cluster)
    for command in (RetryJob(JOB), tallied(2, 0.9, 0.9, segment=702), CancelJob(JOB)):
        cluster.accept(command)
    assert cluster.reject(late).code == "conflict"
    assert len(cluster.job.segments) == 3


def test_a_job_that_was_kept_whole_can_be_sealed_when_it_has_succeeded() -> None:
    first, second = name(1), name(2)
    cluster = Cluster(*LEVELED, submit(), start(), fitted(first), failed(second), finish(best=first))
    before = job_progress(cluster.job, 1)
    cluster.accept(seal(cluster))
    assert set(cluster.job.candidates) == {first}
    assert cluster.job.candidates[first].folds
    assert job_progress(cluster.job, 1) == before
    assert is_partial(cluster.job)


def test_a_sealed_job_that_is_tried_again_has_its_candidates_proposed_anew() -> None:
    cluster = Cluster(*MEASURED, CancelJob(JOB))
    cluster.accept(seal(cluster, 800, name(1)))
    cluster.accept(RetryJob(JOB))
    job = cluster.job
    assert (job.state, job.sealed, job.results, len(job.candidates)) == (JobState.QUEUED, False, digest(800), 0)
    assert counts(cluster) == Tally(4, FOLDS, greater_is_better=True)
    cluster.accept(propose(0, 4, complete=True))
    cluster.accept(tallied(1, 0.9, 0.9))
    assert cluster.candidate(name(1)).state is CandidateState.OK
    assert digest(800) in cluster.state.blobs, "its earlier results are needed still"
    cluster.accept(finish(best=name(1)))
    cluster.accept(seal(cluster, 801))
    assert digest(800) not in cluster.state.blobs


def test_a_retry_of_what_is_not_sealed_recounts() -> None:
    cluster = Cluster(*MEASURED, failed(name(2)), CancelJob(JOB), RetryJob(JOB))
    found = counts(cluster)
    assert (found.done, found.failed, found.best) == (4, 0, 1)
    assert [c.id for c in open_candidates(cluster.job, 0)] == [name(2), name(3)]


# ---------------------------------------------------------------- deletion
def test_a_deleted_job_is_gone_with_its_files_and_its_models_stay() -> None:
    cluster = Cluster(*MEASURED, publish(name(1)), finish(best=name(1)))
    cluster.accept(seal(cluster))
    assert kinds(cluster.accept(DeleteJob(JOB))) == ["job.deleted"]
    assert JOB not in cluster.state.jobs
    assert set(cluster.state.blobs) == referenced_digests(cluster.state)
    assert cluster.state.models["iris"].versions[1].job == JOB
    assert cluster.reject(DeleteJob(JOB)).code == "not_found"


def test_a_job_that_is_not_over_is_not_deleted() -> None:
    assert Cluster(*PROPOSED).reject(DeleteJob(JOB)).code == "in_use"
    Cluster(*MEASURED, CancelJob(JOB)).accept(DeleteJob(JOB))


# ---------------------------------------------------------------- size
def test_a_large_job_is_small_in_a_snapshot() -> None:
    many = 1_000
    big = replace(TALLIED, units=(replace(TALLIED.units[0], tally=Tally(many, 5, greater_is_better=True)),))
    cluster = Cluster(*LEVELED, big)
    params = msgspec.json.encode({"C": 1.2345678901234567, "gamma": 0.00123456789, "preprocess__scale": "standard"})
    before = len(encode_state(cluster.state))
    for first in range(0, many, 100):
        made = tuple(
            NewCandidate(name(n), 0, "HistGradientBoostingClassifier", params, n * 1_000_003, 5)  # type: ignore[arg-type]
            for n in range(first, first + 100)
        )
        cluster.accept(AddCandidates(1, JOB, 0, first, made, complete=first == 900))
        folds = tuple(FoldTally(new.id, fold, 0.123456789, 0.5, 1.5) for new in made for fold in range(5))
        cluster.accept(RecordFolds(1, JOB, tallies=folds))
    assert (len(encode_state(cluster.state)) - before) / many < 500, "bytes a candidate"


def test_failures_of_a_candidate_that_is_unknown_change_nothing() -> None:
    lost = RecordFolds(1, JOB, failed=(FoldFailed(CandidateId("0.9"), 0, "x"),))
    assert Cluster(*PROPOSED).reject(lost).code == "not_found"
    assert Digest(digest(1))
