"""What must hold of every state that the machine can reach."""

from itertools import pairwise
from math import isclose

from msgspec.structs import replace

from consensus.progress import open_candidates
from consensus.queries import UNFINISHED, referenced_digests
from consensus.rules.machine import AUDIT_ENTRIES, RECENT_COMMANDS
from consensus.rules.models import HISTORY_MOVES
from consensus.rules.tallies import recounted
from consensus.state import Candidate, CandidateState, ClusterState, Job, JobState


def check_invariants(state: ClusterState) -> None:
    check_members_and_blobs(state)
    check_catalog(state)
    for job in state.jobs.values():
        check_job(state, job)
    check_books(state)


def check_members_and_blobs(state: ClusterState) -> None:
    assert not set(state.members) & set(state.revoked)
    assert all(node == member.id for node, member in state.members.items())
    assert set(state.blobs) == referenced_digests(state), "blobs are exactly what somebody refers to"
    for blob in state.blobs.values():
        assert set(blob.holders) <= set(state.members)
        assert list(blob.holders) == sorted(set(blob.holders))


def check_catalog(state: ClusterState) -> None:
    for dataset in state.datasets.values():
        assert max(dataset.versions) == dataset.latest
        assert min(dataset.versions) > state.retired.get(dataset.name, 0)
    published = []
    for model in state.models.values():
        assert sorted(model.versions) == list(range(1, model.latest + 1))
        assert set(model.aliases.values()) <= set(model.versions)
        assert len(model.history) <= HISTORY_MOVES
        for alias, version in model.aliases.items():
            moves = [move for move in model.history if move.alias == alias]
            assert moves[-1].version == version, "the history ends where the alias is"
            for before, after in pairwise(moves):
                assert after.previous == before.version, "the history has no gap"
        published += [(version.job, version.candidate) for version in model.versions.values()]
    assert len(published) == len(set(published)), "a candidate is published once"


def check_job(state: ClusterState, job: Job) -> None:
    all_done = all(unit.done for unit in job.units)
    assert (job.state in (JobState.SUCCEEDED, JobState.FAILED)) == all_done
    if job.state is JobState.SUCCEEDED:
        assert any(unit.best for unit in job.units)
    if job.state is JobState.FAILED:
        assert job.error
        assert not any(unit.best for unit in job.units)
    assert (job.ended_at > 0) == (job.state not in UNFINISHED)
    assert list(job.epochs) == sorted(set(job.epochs))
    if job.state in UNFINISHED:
        for unit in job.units:
            assert unit.version in state.datasets[unit.dataset].versions, "its data is protected"
    for unit in job.units:
        if unit.best:
            assert job.candidates[unit.best].state is CandidateState.OK
    check_form(job)
    for candidate in job.candidates.values():
        check_candidate(state, job, candidate)


def check_form(job: Job) -> None:
    """Whole or tallied, and what is counted is what is there."""
    if job.sealed:
        assert job.state not in UNFINISHED
        assert job.results
        assert not job.segments
    for number, unit in enumerate(job.units):
        mine = [candidate for candidate in job.candidates.values() if candidate.unit == number]
        if unit.tally is None:
            assert not any(candidate.scores for candidate in mine)
            assert not job.segments
            continue
        assert len(mine) <= unit.tally.proposed
        # Of a job that was sealed once, finished units stay as they were left then.
        if not job.sealed and not (unit.done and job.results):
            assert not any(candidate.folds for candidate in mine)
            counted = recounted(unit.tally, mine)
            assert isclose(counted.fit_seconds, unit.tally.fit_seconds, abs_tol=1e-9)
            if not unit.done:  # those of a unit that has its best are not looked at again
                assert replace(counted, fit_seconds=0.0) == replace(unit.tally, fit_seconds=0.0)
                pending = {candidate.id for candidate in mine if candidate.state is CandidateState.PENDING}
                assert {candidate.id for candidate in open_candidates(job, number)} == pending


def check_candidate(state: ClusterState, job: Job, candidate: Candidate) -> None:
    finished = set(candidate.folds) | set(candidate.scores)
    assert not (candidate.folds and candidate.scores)
    complete = len(finished) == candidate.folds_total
    assert finished | set(candidate.running) <= set(range(candidate.folds_total))
    assert not finished & set(candidate.running)
    assert all(result.fold == fold for fold, result in candidate.folds.items())
    if candidate.state is CandidateState.OK:
        assert complete
    if candidate.state is CandidateState.PENDING:
        assert not complete
        assert not job.units[candidate.unit].done
    assert bool(candidate.reason) == (candidate.state in (CandidateState.FAILED, CandidateState.SKIPPED))
    if candidate.running:
        assert candidate.state is CandidateState.PENDING
        assert job.state in UNFINISHED
    for epoch in (*candidate.running.values(), *(result.epoch for result in candidate.folds.values())):
        assert 1 <= epoch <= state.epoch.number


def check_books(state: ClusterState) -> None:
    assert len(state.audit) <= AUDIT_ENTRIES
    assert len(state.recent) <= RECENT_COMMANDS
    assert len(state.recent_before) in (0, RECENT_COMMANDS)
    assert not set(state.recent) & set(state.recent_before)
    assert sorted(state.audit) == list(range(state.audit_next - len(state.audit), state.audit_next))
