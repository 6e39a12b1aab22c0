"""The scheduler: fair, bounded, idempotent; and whatever happens, a job ends as it would have undisturbed."""

import random
from collections import Counter
from typing import NoReturn

import msgspec
from hypothesis import given, settings, strategies as st
from immutables import Map

from consensus.levels import LEVEL, stamped
from consensus.messages import (
    Accepted,
    AddCandidates,
    AddDatasetVersion,
    BeginEpoch,
    CancelJob,
    Command,
    FinishUnit,
    FoldDone,
    FoldFailed,
    FoldTally,
    HeldBlob,
    JoinMember,
    NameCluster,
    NewCandidate,
    RaiseLevel,
    RecordFinal,
    RecordFolds,
    StartFolds,
    SubmitJob,
)
from consensus.progress import fold_scores
from consensus.rules.machine import apply
from consensus.state import (
    Candidate,
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
    Tally,
    Unit,
)
from parvada.schema import FinalResult, JobSpec, LimitSpec
from training.plan import REFIT, Finish, Propose, Start, Stop, Work, plan

ME = NodeId("a" * 32)
FOLDS = 3
PART = Part(Digest("d" * 64), 9, 9)
HELD = HeldBlob(PART.digest, 9, (ME,))


class World:
    """The real state machine, and a clock that stands still. Its jobs are tallied, or kept whole."""

    def __init__(self, *, tallied: bool = True) -> None:
        self.state = ClusterState()
        self.epoch = 1
        self.tallied = tallied
        self.do(NameCluster("c", "t"))
        self.do(JoinMember(Member(ME, "n1", ("127.0.0.1",), 1, 2, 3, 2, "0", 0.0, level=LEVEL)))
        self.do(RaiseLevel(LEVEL))
        self.do(BeginEpoch(1, ME))
        for name in ("one", "two"):
            self.do(AddDatasetVersion(name, PART.digest, 9, 9, (PART,), "y", "binary", Json(b"{}"), (HELD,)))

    def do(self, command: Command) -> None:
        index = self.state.index + 1
        applied = apply(self.state, index, stamped(CommandId(f"c{index}"), 1000.0, "test", command))
        assert isinstance(applied.outcome, Accepted), applied.outcome
        self.state = applied.state

    def submit(self, name: str, candidates: int = 3, spec: JobSpec | None = None) -> JobId:
        spec = spec or JobSpec(datasets=["one", "two"])
        units = tuple(Unit(dataset, 1, "y", "binary", "accuracy", Json(b"{}")) for dataset in ("one", "two"))
        new = [self.candidate(unit, number) for unit in range(2) for number in range(candidates)]
        if self.tallied:
            tally = Tally(candidates, FOLDS, greater_is_better=True)
            units, new = tuple(msgspec.structs.replace(unit, tally=tally) for unit in units), []
        self.do(SubmitJob(JobId(name), "", Json(msgspec.json.encode(spec)), units, tuple(new)))
        return JobId(name)

    def candidate(self, unit: int, number: int) -> NewCandidate:
        return NewCandidate(CandidateId(f"{unit}.{number}"), unit, "GaussianNB", Json(b"{}"), 1, FOLDS)

    def propose(self, job: JobId, unit: int) -> None:
        """Two candidates at a time."""
        tally = self.state.jobs[job].units[unit].tally
        assert tally is not None
        last = min(tally.proposed + 2, tally.expected)
        made = tuple(self.candidate(unit, number) for number in range(tally.proposed, last))
        self.do(AddCandidates(self.epoch, job, unit, tally.proposed, made, last == tally.expected))

    def finish(self, work: Work) -> None:
        """The outcome that this work always has: some folds fail, some refits do."""
        number = int(work.candidate.split(".")[1])
        if work.fold == REFIT:
            error = "no refit" if number == 2 else None
            final = Json(msgspec.json.encode(FinalResult(error=error)))
            self.do(RecordFinal(self.epoch, work.job, work.candidate, final))
        elif number == 1 and work.fold == 1:
            self.do(RecordFolds(self.epoch, work.job, failed=(FoldFailed(work.candidate, work.fold, "bad"),)))
        elif self.tallied:
            tally = FoldTally(work.candidate, work.fold, (number + work.fold) / 10, 1.0, 1.0)
            self.do(RecordFolds(self.epoch, work.job, tallies=(tally,)))
        else:
            scores = Json(msgspec.json.encode({"accuracy": (number + work.fold) / 10}))
            self.do(RecordFolds(self.epoch, work.job, done=(FoldDone(work.candidate, work.fold, scores, 1.0, 1.0),)))

    def unfinished(self) -> bool:
        return any(job.state in (JobState.QUEUED, JobState.RUNNING) for job in self.state.jobs.values())

    def board(self) -> object:
        return {
            (job.id, c.id): (c.state, c.reason, fold_scores(c, "accuracy"), c.final)
            for job in self.state.jobs.values()
            for c in job.candidates.values()
        } | {(job.id, "best"): [(unit.best, unit.error) for unit in job.units] for job in self.state.jobs.values()}


def carry_out(world: World, flying: set[Work], slots: int, now: float = 1000.0) -> list[Work]:
    started: list[Work] = []
    for decision in plan(world.state, flying, slots, now):
        match decision:
            case Propose(job, unit):
                world.propose(job, unit)
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


def proposed(world: World) -> World:
    """With all candidates there, so that a test sees folds alone."""
    for job in world.state.jobs.values():
        for number, unit in enumerate(job.units):
            while unit.tally is not None and not unit.tally.complete:
                world.propose(job.id, number)
                unit = world.state.jobs[job.id].units[number]
    return world


def run_undisturbed() -> object:
    """Of whole jobs: tallied ones must end alike."""
    world, flying = World(tallied=False), set[Work]()
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
@given(st.integers(0, 2**32), st.integers(1, 7), st.booleans())
def test_any_order_and_any_failover_ends_in_the_same_leaderboard(seed: int, slots: int, tallied: bool) -> None:
    rng = random.Random(seed)
    world, flying = World(tallied=tallied), set[Work]()
    world.submit("job-a")
    world.submit("job-b")
    completed: Counter[Work] = Counter()
    for _ in range(2_000):
        if not world.unfinished():
            break
        carry_out(world, flying, slots)
        assert len(flying) <= slots
        again = plan(world.state, flying, slots, 1000.0)
        assert not flying & {work for decision in again if isinstance(decision, Start) for work in decision.work}
        assert again == [] or not flying or tallied, "what was just proposed may be started"
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
    started = carry_out(proposed(world), set(), 8)
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


def test_candidates_are_asked_for_before_a_slot_waits_for_them_and_no_earlier() -> None:
    world, flying = World(), set[Work]()
    job = world.submit("job-a", candidates=40)
    asked = [Propose(job, 0), Propose(job, 1)]
    assert plan(world.state, flying, 4, 1000.0) == asked
    for _ in range(2):
        carry_out(world, flying, 4)
    assert [type(decision) for decision in plan(world.state, flying, 4, 1000.0)] == [Propose, Propose]
    carry_out(world, flying, 4)
    assert plan(world.state, flying, 4, 1000.0) == [], "there is enough"
    assert plan(world.state, flying, 4, 1000.0, {job}) == [Stop(tuple(sorted(flying)))]


def test_a_call_looks_at_open_work_alone() -> None:
    """A thousand finished candidates: their folds are not so much as counted."""
    world, flying = World(), set[Work]()
    job = world.submit("job-a", candidates=1_000)
    proposed(world)
    done = tuple(
        FoldTally(CandidateId(f"{unit}.{number}"), fold, 0.5, 1.0, 1.0)
        for unit in range(2)
        for number in range(998)
        for fold in range(FOLDS)
    )
    for first in range(0, len(done), 500):
        world.do(RecordFolds(1, job, tallies=done[first : first + 500]))
    looked = Counter[str]()

    class Watched(dict[CandidateId, Candidate]):
        def __getitem__(self, name: CandidateId) -> Candidate:
            looked[name] += 1
            return super().__getitem__(name)

        def values(self) -> NoReturn:
            raise AssertionError("all candidates were looked at")

    present = world.state.jobs[job]
    seen = msgspec.structs.replace(present, candidates=Watched(present.candidates.items()))
    decisions = plan(msgspec.structs.replace(world.state, jobs=Map({job: seen})), flying, 4, 1000.0)
    started = [work for decision in decisions if isinstance(decision, Start) for work in decision.work]
    assert [work.candidate for work in started] == ["0.998", "1.998", "0.998", "1.998"]
    assert sum(looked.values()) < 10


def test_nothing_is_decided_twice() -> None:
    world, flying = World(), set[Work]()
    world.submit("job-a")
    while not carry_out(world, flying, 4):
        pass  # candidates are proposed first
    carry_out(world, flying, 4)
    assert plan(world.state, flying, 4, 1000.0) == []


def test_cancelled_job_is_stopped() -> None:
    world, flying = World(), set[Work]()
    job = world.submit("job-a")
    carry_out(proposed(world), flying, 4)
    assert flying
    world.do(CancelJob(job))
    assert plan(world.state, flying, 4, 1000.0) == [Stop(tuple(sorted(flying)))]


def test_job_out_of_time_takes_the_best_of_what_it_has() -> None:
    world, flying = World(), set[Work]()
    job = world.submit("job-a", spec=JobSpec(datasets=["one", "two"], limits=LimitSpec(job_seconds=60)))
    carry_out(proposed(world), flying, 4)
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


def test_a_job_out_of_time_says_so_of_what_was_never_proposed() -> None:
    """The second data set has no candidates at all, the first has not all of them, and what it has is finished."""
    world, flying = World(), set[Work]()
    limits = LimitSpec(job_seconds=60)
    job = world.submit("job-a", 40, JobSpec(datasets=["one", "two"], order="sequential", limits=limits))
    world.propose(job, 0)
    world.do(StartFolds(world.epoch, job, ((CandidateId("0.0"), 0),)))
    for number in range(2):
        for fold in range(FOLDS):
            world.finish(Work(job, CandidateId(f"0.{number}"), fold))
    while world.unfinished():
        for work in carry_out(world, flying, 4, now=1061.0):
            world.finish(work)
            flying.discard(work)
    first, second = world.state.jobs[job].units
    assert (first.best, first.error) == ("0.0", "stopped after 60 s (limits.job_seconds)")
    assert second.error == "no candidate could be fitted: the job took longer than 60 s (limits.job_seconds)"


def test_the_first_folds_of_many_datasets_do_not_wait_for_the_candidates_of_the_last() -> None:
    world, flying = World(), set[Work]()
    tally = Tally(2, FOLDS, greater_is_better=True)
    units = tuple(Unit("one", 1, "y", "binary", "accuracy", Json(b"{}"), tally=tally) for _ in range(100))
    job, spec = JobId("job-a"), Json(msgspec.json.encode(JobSpec(datasets=["one"] * 100)))
    world.do(SubmitJob(job, "", spec, units, ()))
    assert plan(world.state, flying, 4, 1000.0) == [Propose(job, unit) for unit in range(4)]
    carry_out(world, flying, 4)
    assert {work.candidate for work in carry_out(world, flying, 4)} == {"0.0", "1.0", "2.0", "3.0"}
    for work in sorted(flying):
        world.finish(work)
    flying.clear()
    while world.unfinished():
        for work in carry_out(world, flying, 4):
            world.finish(work)
        flying.clear()
    assert all(unit.best for unit in world.state.jobs[job].units)
