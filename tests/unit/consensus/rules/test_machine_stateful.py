"""Random commands in random order: nothing raises, the invariants hold, replicas agree whatever way they came."""

from typing import Any

import msgspec
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consensus.codec import decode_entry, decode_state, encode_entry, encode_state
from consensus.levels import stamped
from consensus.messages import (
    Accepted,
    AddCandidates,
    AddDatasetVersion,
    AnnounceHead,
    Barrier,
    BeginEpoch,
    CancelJob,
    Command,
    CreateToken,
    DeleteDataset,
    DeleteJob,
    DropAlias,
    DropBlobs,
    Entry,
    FinishUnit,
    FoldDone,
    FoldFailed,
    FoldTally,
    HeldBlob,
    HoldBlobs,
    JoinMember,
    MoveAlias,
    NameCluster,
    NewCandidate,
    PublishVersion,
    RaiseLevel,
    RecordFinal,
    RecordFolds,
    Rejected,
    RemoveMember,
    RetryJob,
    RevokeToken,
    RollBackAlias,
    SealJob,
    SetMemberStatus,
    StartFolds,
    SubmitJob,
)
from consensus.rules.machine import Applied, apply
from consensus.state import (
    CandidateId,
    ClusterState,
    CommandId,
    JobId,
    Json,
    MemberStatus,
    NodeId,
    Part,
    Role,
    Tally,
    Unit,
)
from tests.unit.consensus.facts import A, B, C, digest, facts, member
from tests.unit.consensus.rules.invariants import check_invariants

nodes = st.sampled_from([A, A, B, B, C, NodeId("not an id")])
digests = st.integers(1, 4).map(digest)
held = st.builds(HeldBlob, digests, st.just(100), st.lists(nodes, max_size=3).map(tuple))
names = st.sampled_from(["iris", "iris", "wine", "bad name"])
TALLIED = JobId("j5")
jobs = st.sampled_from([JobId("j1"), JobId("j1"), JobId("j2"), TALLIED])
candidates = st.sampled_from([CandidateId(name) for name in ("0.1", "0.1", "0.2", "1.1", "1.1", "9.9")])
objects = st.sampled_from([Json(b"{}"), Json(b"{}"), Json(b'{"a":1}'), Json(b"")])
small = st.sampled_from([0, 1, 1, 2, -1, 3])
folds = st.sampled_from([0, 1, 0, 1, 2])
numbers = st.sampled_from([0, 1, 0, 1, 2])
lates = st.sampled_from([False, False, False, True])
aliases = st.sampled_from(["production", "next", ""])
known = st.sampled_from([CandidateId(name) for name in ("", "0.1", "1.1", "0.2")])
reasons = st.sampled_from(["", "ValueError", "x" * 2000])


def data(number: int) -> AddDatasetVersion:
    parts = (Part(digest(number), 10, 100),)
    blobs = (HeldBlob(digest(number), 100, (A, B)),)
    name = "iris" if number < 3 else "wine"
    return AddDatasetVersion(name, digest(number), 10, 100, parts, "y", "binary", Json(b"{}"), blobs)


def submission(job: JobId, one: int, other: int) -> SubmitJob:
    """Two units on versions `one` and `other`, with two candidates and one."""
    made = tuple(
        NewCandidate(CandidateId(name), int(name[0]), "Ridge", Json(b"{}"), 1, 2) for name in ("0.1", "0.2", "1.1")
    )
    units = tuple(Unit("iris", version, "y", "binary", "f1", Json(b"{}")) for version in (one, other))
    return SubmitJob(job, "", Json(b"{}"), units, made)


def tallied_job(job: JobId) -> SubmitJob:
    """Two units of at least two and one candidates, which are to be proposed."""
    units = tuple(
        Unit("iris", 1, "y", "binary", "f1", Json(b"{}"), tally=Tally(count, 2, up))
        for count, up in ((2, True), (1, False))
    )
    return SubmitJob(job, "", Json(b"{}"), units, ())


def proposal(unit: int, first: int, count: int, *, complete: bool, epoch: int = 1) -> AddCandidates:
    made = tuple(
        NewCandidate(CandidateId(f"{unit}.{number}"), unit, "Ridge", Json(b"{}"), 1, 2)
        for number in range(first, first + count)
    )
    return AddCandidates(epoch, TALLIED, unit, first, made, complete)


class Replicas(RuleBasedStateMachine):
    """One replica applies as it goes; others are made from its log, or from a snapshot and the tail of its log."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ClusterState()
        self.log: list[tuple[int, Entry, Applied]] = []
        self.snapshots: list[tuple[int, bytes]] = [(0, encode_state(self.state))]
        for node in (A, B):
            self.propose(JoinMember(member(node, level=2)))
        self.propose(RaiseLevel(2))
        self.propose(BeginEpoch(1, A))
        for number in (1, 2):
            self.propose(data(number))
        for job in (JobId("j1"), JobId("j2")):
            self.propose(submission(job, 1, number))
        self.propose(tallied_job(TALLIED))
        self.propose(proposal(0, 0, 2, complete=False))

    def propose(self, command: Command) -> Applied:
        index = self.state.index + 1
        entry = stamped(CommandId(f"c{index}"), 1000.0 + index, "ann", command)
        return self.commit(index, entry)

    def commit(self, index: int, entry: Entry) -> Applied:
        before = self.state
        applied = apply(before, index, decode_entry(encode_entry(entry)))
        self.state = applied.state
        self.log.append((index, entry, applied))
        assert applied.state.index == index
        if isinstance(applied.outcome, Rejected):
            assert applied.events == ()
            assert facts(applied.state) == facts(before)
            assert len(applied.outcome.reason) <= 1000
        return applied

    # ---- what happens for the most part
    @rule(command=st.integers(1, 3).map(data))
    def adds_data(self, command: Command) -> None:
        self.propose(command)

    @rule(command=st.builds(submission, st.sampled_from([JobId("j1"), JobId("j3")]), small, small))
    def submits(self, command: Command) -> None:
        self.propose(command)

    @rule(job=jobs, candidate=candidates, fold=folds, late=lates)
    def starts(self, job: JobId, candidate: CandidateId, fold: int, late: bool) -> None:
        self.propose(StartFolds(self.state.epoch.number - late, job, ((candidate, fold),)))

    @rule(job=jobs, chosen=st.lists(st.tuples(candidates, folds), max_size=4), late=lates, score=objects)
    def finishes_folds(self, job: JobId, chosen: list[tuple[CandidateId, int]], late: bool, score: Json) -> None:
        before = self.state.jobs.get(job)
        done = tuple(FoldDone(candidate, fold, score, 1.0, 1.0) for candidate, fold in chosen)
        self.propose(RecordFolds(self.state.epoch.number - late, job, done))
        if before is not None:
            for candidate in before.candidates.values():
                after = self.state.jobs[job].candidates[candidate.id]
                kept = {fold: after.folds[fold] for fold in candidate.folds}
                assert kept == dict(candidate.folds), "a finished fold is never overwritten"

    @rule(job=jobs, unit=st.integers(0, 1), candidate=candidates, best=known, name=names, number=st.integers(1, 6))
    def trains(self, job: JobId, unit: int, candidate: CandidateId, best: CandidateId, name: str, number: int) -> None:
        """What a trainer does with a unit, from its first fold to its end, so that whole lives happen too."""
        epoch = self.state.epoch.number
        self.propose(StartFolds(epoch, job, ((candidate, 0), (candidate, 1))))
        done = tuple(FoldDone(candidate, fold, Json(b"{}"), 1.0, 1.0) for fold in range(2))
        self.propose(RecordFolds(epoch, job, done))
        self.publishes(job, candidate, name, number, "production", True)
        self.propose(FinishUnit(epoch, job, unit, best))

    # ---- a tallied job
    @rule(unit=st.integers(0, 1), first=st.integers(0, 3), count=st.integers(0, 3), complete=lates, late=lates)
    def proposes(self, unit: int, first: int, count: int, complete: bool, late: bool) -> None:
        self.propose(proposal(unit, first, count, complete=complete, epoch=self.state.epoch.number - late))

    @rule(
        chosen=st.lists(st.tuples(numbers, folds, st.none() | st.floats(-9, 9)), max_size=4),
        blob=st.none() | st.tuples(st.integers(11, 14), st.lists(nodes, max_size=3)),
        replaced=st.integers(0, 2),
    )
    def tallies(
        self, chosen: list[tuple[int, int, float | None]], blob: tuple[int, list[NodeId]] | None, replaced: int
    ) -> None:
        before = self.state.jobs.get(TALLIED)
        made = tuple(FoldTally(CandidateId(f"0.{number}"), fold, score, 0.5, 2.0) for number, fold, score in chosen)
        held = HeldBlob(digest(blob[0]), 100, tuple(blob[1])) if blob is not None else None
        old = before.segments[:replaced] if before is not None else ()
        self.propose(RecordFolds(self.state.epoch.number, TALLIED, tallies=made, segment=held, replaces=old))
        if before is not None:
            for candidate in before.candidates.values():
                after = self.state.jobs[TALLIED].candidates[candidate.id].scores
                assert {fold: after[fold] for fold in candidate.scores} == dict(candidate.scores)

    @rule(unit=st.integers(0, 1), number=numbers)
    def trains_a_tallied_unit(self, unit: int, number: int) -> None:
        epoch, name = self.state.epoch.number, CandidateId(f"{unit}.{number}")
        self.propose(proposal(unit, 0, 2, complete=True, epoch=epoch))
        self.propose(StartFolds(epoch, TALLIED, ((name, 0), (name, 1))))
        made = tuple(FoldTally(name, fold, 0.5 + number, 0.5, 2.0) for fold in range(2))
        self.propose(RecordFolds(epoch, TALLIED, tallies=made))
        self.propose(FinishUnit(epoch, TALLIED, unit, name))

    @rule(job=jobs, number=st.integers(11, 14), keep=st.lists(candidates, max_size=2), late=lates)
    def seals(self, job: JobId, number: int, keep: list[CandidateId], late: bool) -> None:
        results = HeldBlob(digest(number), 100, (A, B))
        ended_at = self.state.jobs[job].ended_at if job in self.state.jobs else 0.0
        self.propose(SealJob(job, ended_at - late, results, tuple(keep)))

    @rule(job=jobs)
    def ends_and_goes_on(self, job: JobId) -> None:
        """What is sealed may be tried again, with what it had."""
        self.propose(CancelJob(job))
        ended_at = self.state.jobs[job].ended_at if job in self.state.jobs else 0.0
        self.propose(SealJob(job, ended_at, HeldBlob(digest(12), 100, (A,)), ()))
        self.propose(RetryJob(job))

    @rule(job=jobs, rarely=st.integers(0, 4))
    def deletes(self, job: JobId, rarely: int) -> None:
        if rarely == 0:
            self.propose(DeleteJob(job))
            if job == TALLIED and job not in self.state.jobs:
                self.propose(tallied_job(job))

    @rule(job=jobs, candidate=candidates, fold=folds, reason=reasons)
    def fails_fold(self, job: JobId, candidate: CandidateId, fold: int, reason: str) -> None:
        self.propose(RecordFolds(self.state.epoch.number, job, (), (FoldFailed(candidate, fold, reason),)))

    @rule(job=jobs, candidate=candidates, name=names, number=st.integers(1, 6), alias=aliases, move=st.booleans())
    def publishes(self, job: JobId, candidate: CandidateId, name: str, number: int, alias: str, move: bool) -> None:
        file = digest(number)
        blob = HeldBlob(file, 100, (A, C))
        self.propose(
            PublishVersion(
                self.state.epoch.number, job, candidate, name, file, 100, "binary", "Ridge", "onnx", Json(b"{}"), blob,
                alias, move, Json(b"{}"),
            )
        )  # fmt: skip

    @rule(job=jobs, unit=small, best=known, reason=reasons)
    def finishes_unit(self, job: JobId, unit: int, best: CandidateId, reason: str) -> None:
        self.propose(FinishUnit(self.state.epoch.number, job, unit, best, reason))

    @rule(ahead=st.sampled_from([1, 1, 1, 0, 2, -1]), head=nodes)
    def begins_epoch(self, ahead: int, head: NodeId) -> None:
        before = self.state.epoch.number
        applied = self.propose(BeginEpoch(before + ahead, head))
        assert self.state.epoch.number == before + isinstance(applied.outcome, Accepted)

    # ---- and everything else
    @rule(
        command=st.one_of(
            st.builds(NameCluster, names, names),
            st.builds(
                JoinMember,
                st.sampled_from([*(member(node, level=2) for node in (A, B, C)), member(C, level=2, cpus=-1)]),
            ),
            st.builds(SetMemberStatus, nodes, st.sampled_from(MemberStatus)),
            st.builds(RemoveMember, st.sampled_from([C, C, B])),
            st.builds(AnnounceHead, small, st.sampled_from(["", "a:1", "b:1"])),
            st.builds(HoldBlobs, nodes, st.lists(digests, max_size=3).map(tuple)),
            st.builds(DropBlobs, nodes, st.lists(digests, max_size=3).map(tuple)),
            st.builds(DeleteDataset, names),
            st.builds(RecordFinal, small, jobs, candidates, objects),
            st.builds(CancelJob, jobs),
            st.builds(RetryJob, jobs),
            st.builds(MoveAlias, names, aliases, small, st.just(""), st.none() | small),
            st.builds(DropAlias, names, aliases),
            st.builds(RollBackAlias, names, aliases),
            st.builds(CreateToken, names, names, st.sampled_from(Role), digests),
            st.builds(RevokeToken, names),
            st.builds(Barrier),
        )
    )
    def anything(self, command: Command) -> None:
        self.propose(command)

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def repeats(self, data: Any) -> None:
        """The same entry at a later index: the first outcome, nothing else."""
        _, entry, first = data.draw(st.sampled_from(self.log))
        before = self.state
        again = self.commit(before.index + 1, entry)
        assert again.outcome == first.outcome
        assert again.events == ()
        assert again.state == msgspec.structs.replace(before, index=before.index + 1)

    @rule()
    def snapshots_itself(self) -> None:
        data = encode_state(self.state)
        assert decode_state(data) == self.state
        self.snapshots.append((len(self.log), data))

    @invariant()
    def invariants_hold(self) -> None:
        check_invariants(self.state)

    def teardown(self) -> None:
        """Replay from the beginning, and from every snapshot, ends in the very same bytes."""
        for position, data in self.snapshots[:1] + self.snapshots[-3:]:
            state = decode_state(data)
            for index, entry, first in self.log[position:]:
                applied = apply(state, index, entry)
                assert (applied.outcome, applied.events) == (first.outcome, first.events)
                state = applied.state
            assert encode_state(state) == encode_state(self.state)


TestReplicas = Replicas.TestCase
TestReplicas.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
