"""The scheduler: fair, bounded, idempotent; and whatever happens, a job ends as it would have undisturbed."""

import random
from collections import Counter

import msgspec
from hypothesis import given, settings, strategies as st

from consensus.messages import (
    Accepted,
    AddDatasetVersion,
    BeginEpoch,
    CancelJob,
    Command,
    Entry,
    FinishUnit,
    FoldDone,
    FoldFailed,
    HeldBlob,
    JoinMember,
    NameCluster,
    NewCandidate,
    RecordFinal,
    RecordFolds,
    StartFolds,
    SubmitJob,
)
from consensus.rules.machine import apply
from consensus.state import (
    CandidateId,
    ClusterState,
    CommandId,
    Digest,
    JobId,
    JobState,
    Json,
    Member,
    NodeId,
    Part,
    Unit,
)
from parvada.schema import FinalResult, JobSpec, LimitSpec
from training.plan import REFIT, Finish, Start, Stop, Work, plan

ME = NodeId("a" * 32)
FOLDS = 3
PART = Part(Digest("d" * 64), 9, 9)
HELD = HeldBlob(PART.digest, 9, (ME,))


class World:
    """The real state machine, and a clock that stands still."""

    def __init__(self) -> None:
        self.state = ClusterState()
        self.epoch = 1
        self.do(NameCluster("c", "t"))
        self.do(JoinMember(Member(ME, "n1", ("127.0.0.1",), 1, 2, 3, 2, "0", 0.0)))
        self.do(BeginEpoch(1, ME))
        for name in ("one", "two"):
            self.do(AddDatasetVersion(name, PART.digest, 9, 9, (PART,), "y", "binary", Json(b"{}"), (HELD,)))

    def do(self, command: Command) -> None:
        index = self.state.index + 1
        applied = apply(self.state, index, Entry(CommandId(f"c{index}"), 1000.0, "test", command))
        assert isinstance(applied.outcome, Accepted), applied.outcome
        self.state = applied.state

    def submit(self, name: str, candidates: int = 3, spec: JobSpec | None = None) -> JobId:
        spec = spec or JobSpec(datasets=["one", "two"])
        units = tuple(Unit(dataset, 1, "y", "binary", "accuracy", Json(b"{}")) for dataset in ("one", "two"))
        new = tuple(
            NewCandidate(CandidateId(f"{unit}.{number}"), unit, "GaussianNB", Json(b"{}"), 1, FOLDS)
            for unit in range(2)
            for number in range(candidates)
        )
        self.do(SubmitJob(JobId(name), "", Json(msgspec.json.encode(spec)), units, new))
        return JobId(name)

    def finish(self, work: Work) -> None:
        """The outcome that this work always has: some folds fail, some refits do."""
        number = int(work.candidate.split(".")[1])
        if work.fold == REFIT:
            error = "no refit" if number == 2 else None
            final = Json(msgspec.json.encode(FinalResult(error=error)))
            self.do(RecordFinal(self.epoch, work.job, work.candidate, final))
        elif number == 1 and work.fold == 1:
            self.do(RecordFolds(self.epoch, work.job, failed=(FoldFailed(work.candidate, work.fold, "bad"),)))
        else:
            scores = Json(msgspec.json.encode({"accuracy": (number + work.fold) / 10}))
            self.do(RecordFolds(self.epoch, work.job, done=(FoldDone(work.candidate, work.fold, scores, 1.0, 1.0),)))

    def unfinished(self) -> bool:
        return any(job.state in (JobState.QUEUED, JobState.RUNNING) for job in self.state.jobs.values())

    def board(self) -> object:
        return {
            (job.id, c.id): (c.state, c.reason, sorted((f, r.scores) for f, r in c.folds.items()), c.final)
            for job in self.state.jobs.values()
            for c in job.candidates.values()
        } | {(job.id, "best"): [(unit.best, unit.error) for unit in job.units] for job in self.state.jobs.values()}


def carry_out(world: World, flying: set[Work], slots: int, now: float = 1000.0) -> list[Work]:
    started: list[Work] = []
    for decision in plan(world.state, flying, slots, now):
        match decision:
            case Stop(work):
                flying.difference_update(work)
            case Finish(job, unit, best, error):
                world.do(FinishUnit(world.epoch, job, unit, best, error))
            case Start(work):
                folds = tuple((item.candidate, item.fold) for item in work if item.fold != REFIT)
                if folds:
                    world.do(StartFolds(world.epoch, work[0].job, folds))
                flying.update(work)
                started += work
    return started


def run_undisturbed() -> object:
    world, flying = World(), set[Work]()
    world.submit("job-a")
    world.submit("job-b")
    while world.unfinished():
        carry_out(world, flying, 4)
        for work in sorted(flying):
            world.finish(work)
        flying.clear()
    return world.board()


UNDISTURBED = run_undisturbed()


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 7))
def test_any_order_and_any_failover_ends_in_the_same_leaderboard(seed: int, slots: int) -> None:
    rng = random.Random(seed)
    world, flying = World(), set[Work]()
    world.submit("job-a")
    world.submit("job-b")
    completed: Counter[Work] = Counter()
    for _ in range(2_000):
        if not world.unfinished():
            break
        carry_out(world, flying, slots)
        assert len(flying) <= slots
        assert plan(world.state, flying, slots, 1000.0) == [] or not flying
        for work in rng.sample(sorted(flying), rng.randint(0, len(flying))):
            flying.discard(work)
            if rng.random() < 0.15:
                continue  # its worker was lost
            if any(s.fold == work.fold and s.candidate == work.candidate and s.job == work.job for s in completed):
                raise AssertionError(f"{work} was fitted twice")
            if work.fold != REFIT:
                completed[work] += 1
            world.finish(work)
        if rng.random() < 0.1:
            world.epoch += 1
            world.do(BeginEpoch(world.epoch, ME))
            flying.clear()
    assert not world.unfinished()
    board, expected = world.board(), UNDISTURBED
    assert isinstance(board, dict)
    assert isinstance(expected, dict)
    # A candidate that failed may have got more or fewer of its other folds before; all else is equal.
    assert {k: v for k, v in board.items() if v[0] != "failed"} == {
        k: v for k, v in expected.items() if v[0] != "failed"
    }


def test_refit_that_fails_gives_way_to_the_next_best() -> None:
    assert isinstance(UNDISTURBED, dict)
    assert UNDISTURBED[("job-a", "best")] == [("0.0", ""), ("1.0", "")]


def test_jobs_and_datasets_share_the_slots_evenly() -> None:
    world = World()
    world.submit("job-a", candidates=10)
    world.submit("job-b")
    started = carry_out(world, set(), 8)
    assert Counter((work.job, work.candidate[0]) for work in started) == {
        ("job-a", "0"): 2,
        ("job-a", "1"): 2,
        ("job-b", "0"): 2,
        ("job-b", "1"): 2,
    }


def test_sequential_job_takes_one_dataset_after_the_other() -> None:
    world, flying = World(), set[Work]()
    world.submit("job-a", spec=JobSpec(datasets=["one", "two"], order="sequential"))
    seen: list[str] = []
    while world.unfinished():
        for work in carry_out(world, flying, 4):
            seen.append(work.candidate[0])
            world.finish(work)
        flying.clear()
    assert seen == sorted(seen)


def test_nothing_is_decided_twice() -> None:
    world, flying = World(), set[Work]()
    world.submit("job-a")
    assert carry_out(world, flying, 4)
    assert plan(world.state, flying, 4, 1000.0) == []


def test_cancelled_job_is_stopped() -> None:
    world, flying = World(), set[Work]()
    job = world.submit("job-a")
    carry_out(world, flying, 4)
    world.do(CancelJob(job))
    assert plan(world.state, flying, 4, 1000.0) == [Stop(tuple(sorted(flying)))]


def test_job_out_of_time_takes_the_best_of_what_it_has() -> None:
    world, flying = World(), set[Work]()
    job = world.submit("job-a", spec=JobSpec(datasets=["one", "two"], limits=LimitSpec(job_seconds=60)))
    carry_out(world, flying, 4)
    for fold in range(FOLDS):
        world.finish(Work(job, CandidateId("0.0"), fold))
    flying = {work for work in flying if work.candidate != "0.0"}
    for _ in range(4):
        for work in carry_out(world, flying, 4, now=1061.0):
            assert work.fold == REFIT
            world.finish(work)
            flying.discard(work)
    ended = world.state.jobs[job]
    assert ended.state is JobState.SUCCEEDED
    assert ended.units[0].best == "0.0"
    assert "job_seconds" in ended.units[1].error
