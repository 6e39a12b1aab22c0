"""The trainer end to end: from a submitted job to a published model that can be loaded; failover; cancellation."""

import asyncio
import pickle
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import skops.io
from sklearn.datasets import load_iris

from consensus.messages import AddCandidates, BeginEpoch, CancelJob, Command, DropBlobs, RecordFolds, RetryJob
from consensus.progress import is_partial
from consensus.state import CandidateState, Digest, Job, JobId, JobState
from parvada.columns import to_frame
from parvada.local import Proposed
from parvada.schema import (
    CandidateSpec,
    CvSpec,
    FinalResult,
    InputField,
    JobSpec,
    LimitSpec,
    LiveFit,
    LiveJob,
    PublishSpec,
    VersionDetail,
)
from parvada.trusted import TRUSTED_TYPES
from tests.integration.training.cluster import ME, OneNode, one_node, trainer
from training import archive
from training.errors import EpochLost
from training.inline import InlineExecutor
from training.ports import CurvePoint, Hear, Task
from training.preprocess import PreprocessOptions
from training.results import decode_segment
from training.tasks import DataView, Recipe, RefitOutcome, RefitTask, SplitPlan
from training.trainer_link import TrainerLink

pytestmark = pytest.mark.timeout(300)

MODELS: list[str | CandidateSpec] = [
    "LogisticRegression",
    "GaussianNB",
    CandidateSpec(estimator="DecisionTreeClassifier", params={"max_depth": 3}),
]
SLOW = CandidateSpec(estimator="MLPClassifier", params={"hidden_layer_sizes": [3000, 3000], "max_iter": 100_000})


class Halting(InlineExecutor):
    """Runs a few tasks and then no more, as an executor does whose trainer is about to die."""

    def __init__(self, tasks: int) -> None:
        super().__init__(workers=1)
        self._left = tasks

    async def run(self, task: Task, on_message: Hear | None = None) -> object:
        self._left -= 1
        if self._left < 0:
            await asyncio.Event().wait()
        return await super().run(task, on_message)


class Hasty(InlineExecutor):
    """The fits of one candidate are stopped after half a second; `limits` holds what they were to have."""

    def __init__(self, candidate: str) -> None:
        super().__init__(workers=1)
        self._candidate = candidate
        self.limits: set[float] = set()

    async def run(self, task: Task, on_message: Hear | None = None) -> object:
        if f"/{self._candidate}/" in task.label:
            self.limits.add(task.seconds)
            task = msgspec.structs.replace(task, seconds=0.5)
        return await super().run(task, on_message)


class Noting(InlineExecutor):
    """Keeps what refits give; the first `refuse` of them fail to store their model."""

    def __init__(self, refuse: int = 0) -> None:
        super().__init__(workers=1)
        self.outcomes: list[RefitOutcome] = []
        self._refuse = refuse

    async def run(self, task: Task, on_message: Hear | None = None) -> object:
        outcome = await super().run(task, on_message)
        if isinstance(outcome, RefitOutcome):
            if len(self.outcomes) < self._refuse:
                outcome = msgspec.structs.replace(outcome, stored=None, not_stored="node n1 has no room")
            self.outcomes.append(outcome)
        return outcome


class Talking(InlineExecutor):
    """Its fits tell two points of a curve, and go on when `heard` is set."""

    def __init__(self) -> None:
        super().__init__(workers=1)
        self.heard = asyncio.Event()

    async def run(self, task: Task, on_message: Hear | None = None) -> object:
        assert on_message is not None
        for iteration in (1, 2):
            on_message(CurvePoint(iteration, "train", "loss", 1 / iteration, 0.1 * iteration))
        await self.heard.wait()
        return await super().run(task, on_message)


def iris_csv() -> str:
    frame = load_iris(as_frame=True).frame
    frame["target"] = frame["target"].map({0: "setosa", 1: "versicolor", 2: "virginica"})
    text: str = frame.to_csv(index=False)
    return text


def leaderboard(job: Job) -> dict[str, list[object]]:
    """The scores of each candidate's folds, in whichever form the job keeps them."""
    return {
        c.id: [c.folds[fold].scores for fold in sorted(c.folds)] or [c.scores[fold] for fold in sorted(c.scores)]
        for c in job.candidates.values()
    }


def folds(job: Job) -> dict[tuple[str, int], object]:
    return {(c.id, f): result for c in job.candidates.values() for f, result in (*c.folds.items(), *c.scores.items())}


async def finished(node: OneNode, name: str) -> Job:
    await node.wait_for(lambda: node.log.state.jobs[name].state in ("succeeded", "failed", "cancelled"))  # type: ignore[index]
    return node.log.state.jobs[name]  # type: ignore[index]


@pytest.mark.parametrize("tallied", [True, False])
async def test_job_ends_in_a_published_model_that_predicts(tmp_path: Path, tallied: bool) -> None:
    executor = Noting()
    async with one_node(tmp_path) as node, trainer(node, 1, executor):
        await node.add_dataset("iris", iris_csv())
        await node.submit(JobSpec(datasets=["iris"], models=MODELS), "first", tallied=tallied)
        job = await finished(node, "first")
        assert job.state is JobState.SUCCEEDED
        assert [len(row) for row in leaderboard(job).values()] == [5, 5, 5]
        assert bool(job.segments) is tallied
        model = node.log.state.models["iris"]
        assert model.aliases["production"] == 1
        version = model.versions[1]
        detail = msgspec.json.decode(version.detail, type=VersionDetail)
        assert detail.metrics["accuracy"] > 0.9
        assert detail.metrics["holdout_accuracy"] > 0.85
        assert detail.metrics["f1_macro"] > 0.9, "also what only a segment knows"
        final = msgspec.json.decode(job.candidates[job.units[0].best].final, type=FinalResult)
        assert (final.model, final.version) == ("iris", 1)
        loaded = skops.io.load(node.blobs.path(version.digest), trusted=list(TRUSTED_TYPES))
        values = [[5.1], [3.5], [1.4], [0.2]]
        columns = {field.name: value for field, value in zip(detail.signature.inputs, values, strict=True)}
        assert list(loaded.predict(to_frame(columns, detail.signature.inputs))) == ["setosa"]
        assert node.alone.reports[-1].mode == "inline"
        assert not list(node.tmp.iterdir())
        assert [outcome.stored is not None for outcome in executor.outcomes] == [True]

        # The same seed gives the same scores; an equal model does not take the alias.
        await node.submit(JobSpec(datasets=["iris"], models=MODELS), "second", tallied=tallied)
        again = await finished(node, "second")
        assert leaderboard(again) == leaderboard(job)
        assert node.log.state.models["iris"].latest == 2
        assert node.log.state.models["iris"].aliases["production"] == 1


async def test_a_model_goes_from_its_worker_to_the_store_and_not_through_the_trainer(tmp_path: Path) -> None:
    rows, width = 65_000, 100
    columns = np.random.default_rng(0).normal(size=(width, rows))
    names = [f"x{number}" for number in range(width)]
    part = tmp_path / "part.parquet"
    pq.write_table(pa.table({**dict(zip(names, columns, strict=True)), "y": columns[0] * 2}), part)
    fields = [InputField(name=name, type="number", required=True) for name in names]
    recipe = Recipe(
        "KNeighborsRegressor", {"algorithm": "brute"}, PreprocessOptions(), 1, "r2", SplitPlan(2, 1, 0.0, 1)
    )
    payload = RefitTask(DataView("y", "regression", fields), recipe, store=True)
    executor = Noting()
    async with one_node(tmp_path / "node") as node:
        await executor.start()
        await executor.share("wide", [part])
        await executor.run(Task("training.trial:refit", payload, "wide", seconds=240.0))
        await executor.stop()
        (outcome,) = executor.outcomes
        assert outcome.failed == ""
        assert outcome.stored is not None
        assert outcome.stored.holders == (ME,)
        assert outcome.stored.bytes > 50_000_000
        assert node.blobs.path(Digest(outcome.stored.digest)).stat().st_size == outcome.stored.bytes
        assert len(pickle.dumps(outcome)) < 20_000, "nothing of the model came back"
        assert not list(node.tmp.iterdir())


async def test_a_model_that_found_no_room_is_fitted_again(tmp_path: Path) -> None:
    executor = Noting(refuse=1)
    async with one_node(tmp_path) as node, trainer(node, 1, executor):
        await node.add_dataset("iris", iris_csv())
        await node.submit(JobSpec(datasets=["iris"], models=["GaussianNB", "DummyClassifier"]), "full")
        job = await finished(node, "full")
        assert job.state is JobState.SUCCEEDED
        assert [outcome.not_stored for outcome in executor.outcomes] == ["node n1 has no room", ""]
        assert job.candidates[job.units[0].best].estimator == "GaussianNB", "and no other took its place"
        assert node.log.state.models["iris"].versions[1].estimator == "GaussianNB"


async def test_what_running_fits_tell_is_known_to_the_agent_until_they_end(tmp_path: Path) -> None:
    executor = Talking()
    async with one_node(tmp_path) as node, trainer(node, 1, executor):
        await node.add_dataset("iris", iris_csv())
        spec = JobSpec(datasets=["iris"], models=["GaussianNB"], cv=CvSpec(folds=2), publish=PublishSpec(when="never"))
        name = await node.submit(spec, "told")

        def shown() -> list[LiveFit]:
            return msgspec.json.decode(node.live.read(name), type=LiveJob).fits

        await node.wait_for(lambda: len(shown()) == 2)
        assert [(fit.candidate, fit.fold, fit.series[0].value) for fit in shown()] == [
            ("0.0", 0, [1.0, 0.5]),
            ("0.0", 1, [1.0, 0.5]),
        ]
        executor.heard.set()
        assert (await finished(node, name)).state is JobState.SUCCEEDED
        await node.wait_for(lambda: not shown())


@pytest.mark.parametrize("tallied", [True, False])
async def test_next_epoch_goes_on_where_the_last_one_stopped(tmp_path: Path, tallied: bool) -> None:
    async with one_node(tmp_path) as node:
        await node.add_dataset("iris", iris_csv())
        spec = JobSpec(datasets=["iris"], models=MODELS, cv=CvSpec(folds=4), publish=PublishSpec(when="never"))
        await node.submit(spec, "undisturbed", tallied=tallied)
        async with trainer(node, 1):
            undisturbed = await finished(node, "undisturbed")
        name = await node.submit(spec, "disturbed", tallied=tallied)
        async with trainer(node, 1, Halting(tasks=4)) as first:
            await node.wait_for(lambda: len(folds(node.job(name))) == 4)
            await node.propose(BeginEpoch(2, ME))
            with pytest.raises(EpochLost):
                await asyncio.wait_for(first, 30)
        done_before = folds(node.job(name))
        assert len(done_before) == 4
        async with trainer(node, 2):
            disturbed = await finished(node, "disturbed")
        assert leaderboard(disturbed) == leaderboard(undisturbed)
        assert disturbed.units[0].best == undisturbed.units[0].best
        assert disturbed.epochs == (1, 2)
        after = folds(disturbed)
        assert {key: after[key] for key in done_before} == done_before, "a finished fold was fitted again"
        if tallied:
            rows = [row for digest in disturbed.segments for row in decode_segment(node.read(digest), name)]
            assert sorted((row.candidate, row.fold) for row in rows) == sorted(after), "each once"
            assert {row.epoch for row in rows} == {1, 2}


class Counting(InlineExecutor):
    """Notes which tasks it was given."""

    def __init__(self) -> None:
        super().__init__(workers=1)
        self.ran: list[str] = []

    async def run(self, task: Task, on_message: Hear | None = None) -> object:
        self.ran.append(task.label)
        return await super().run(task, on_message)


async def test_a_sealed_job_that_is_tried_again_has_its_finished_folds_back(tmp_path: Path) -> None:
    async with one_node(tmp_path) as node:
        await node.add_dataset("iris", iris_csv())
        spec = JobSpec(datasets=["iris"], models=MODELS, cv=CvSpec(folds=4))
        name = await node.submit(spec, "again")
        async with trainer(node, 1, Halting(tasks=6)):
            await node.wait_for(lambda: len(folds(node.job(name))) == 6)
            await node.propose(CancelJob(name))
        before = folds(node.job(name))
        await node.seal(name, keep=())
        assert folds(node.job(name)) == {}
        await node.propose(BeginEpoch(2, ME), RetryJob(name))
        counting = Counting()
        async with trainer(node, 2, counting):
            job = await finished(node, name)
        assert job.state is JobState.SUCCEEDED
        after = folds(job)
        assert {key: after[key] for key in before} == before
        fitted = [f"{name}/{candidate}/{fold}" for candidate, fold in after if (candidate, fold) not in before]
        assert sorted(label for label in counting.ran if not label.endswith("refit")) == sorted(fitted)
        version = node.log.state.models["iris"].versions[1]
        detail = msgspec.json.decode(version.detail, type=VersionDetail)
        assert detail.metrics["f1_macro"] > 0.9, "of folds of before and after"
        await node.seal(name)
        found = archive.read_scores(str(node.blobs.path(node.job(name).results)), job.units[0].best)
        assert sorted(found) == [0, 1, 2, 3]


class Gated(Counting):
    """Runs as many tasks as it is let, and notes those alone."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self._let = asyncio.Semaphore(tasks)

    def let(self, tasks: int) -> None:
        for _ in range(tasks):
            self._let.release()

    async def run(self, task: Task, on_message: Hear | None = None) -> object:
        await self._let.acquire()
        return await super().run(task, on_message)

    @property
    def folds(self) -> list[str]:
        return sorted(label for label in self.ran if not label.endswith("refit"))


async def begun_and_sealed(node: OneNode, gated: Gated, done: int) -> JobId:
    """A job of 12 folds that was cancelled after `done` of them."""
    await node.add_dataset("iris", iris_csv())
    spec = JobSpec(datasets=["iris"], models=MODELS, cv=CvSpec(folds=4), publish=PublishSpec(when="never"))
    name = await node.submit(spec, "again")
    await node.wait_for(lambda: len(folds(node.job(name))) == done)
    await node.propose(CancelJob(name))
    await node.seal(name, keep=())
    return name


async def test_a_job_that_is_sealed_twice_has_its_folds_back_twice(tmp_path: Path) -> None:
    """Under one trainer, and although nothing was added between: the second file is the first one."""
    gated = Gated(tasks=5)
    async with one_node(tmp_path) as node, trainer(node, 1, gated):
        name = await begun_and_sealed(node, gated, done=5)
        before = node.job(name).results
        await node.propose(RetryJob(name))
        await node.wait_for(lambda: len(folds(node.job(name))) == 5)
        await node.propose(CancelJob(name))
        await node.seal(name, keep=())
        assert node.job(name).results == before
        gated.let(100)
        await node.propose(RetryJob(name))
        assert len(folds(await finished(node, name))) == 12
        assert gated.folds == sorted(set(gated.folds)), "a finished fold was fitted again"


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("at", [AddCandidates, RecordFolds])
async def test_a_job_cancelled_while_it_gets_its_folds_back_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: type[Command], sealed: bool
) -> None:
    gated = Gated(tasks=5)
    async with one_node(tmp_path) as node, trainer(node, 1, gated):
        name = await begun_and_sealed(node, gated, done=5)
        propose, cancelled = TrainerLink.propose, asyncio.Event()

        async def cancelling(link: TrainerLink, command: Command) -> Proposed:
            if isinstance(command, at) and not cancelled.is_set():
                cancelled.set()
                await node.propose(CancelJob(name))
            return await propose(link, command)

        monkeypatch.setattr(TrainerLink, "propose", cancelling)
        await node.propose(RetryJob(name))
        await asyncio.wait_for(cancelled.wait(), 30)
        if sealed:
            await node.seal(name)
            assert is_partial(node.job(name)), "candidates that are only in the file are looked for there"
            path = str(node.blobs.path(node.job(name).results))
            known = archive.read_candidates(path)
            assert len(known) == 3
            assert sum(len(candidate.scores) for candidate in known) == len(archive.read_costs(path)) == 5
        gated.let(100)
        await node.propose(RetryJob(name))
        assert len(folds(await finished(node, name))) == 12
        assert gated.folds == sorted(set(gated.folds)), "a finished fold was fitted again"


async def test_candidates_that_come_too_late_do_not_fail_their_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While they are under way the job is cancelled, sealed and tried again: it has none of those before them."""
    monkeypatch.setattr("training.ledger.CHUNK", 1)
    propose, gated = TrainerLink.propose, Gated(tasks=100)
    async with one_node(tmp_path) as node:
        await node.add_dataset("iris", iris_csv())
        spec = JobSpec(datasets=["iris"], models=MODELS, cv=CvSpec(folds=2), publish=PublishSpec(when="never"))
        name = await node.submit(spec, "late")
        again = asyncio.Event()

        async def late(link: TrainerLink, command: Command) -> Proposed:
            if isinstance(command, AddCandidates) and command.first == 1 and not again.is_set():
                again.set()
                await node.propose(CancelJob(name))
                await node.seal(name)
                await node.propose(RetryJob(name))
            return await propose(link, command)

        monkeypatch.setattr(TrainerLink, "propose", late)
        async with trainer(node, 1, gated):
            job = await finished(node, name)
        assert (job.state, len(folds(job)), job.units[0].error) == (JobState.SUCCEEDED, 6, "")


async def test_a_job_whose_file_cannot_be_read_is_run_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gated = Gated(tasks=5)
    async with one_node(tmp_path) as node, trainer(node, 1, gated) as running:
        name = await begun_and_sealed(node, gated, done=5)
        await node.propose(RetryJob(name), CancelJob(name))
        await node.keep_results(name, b"no Arrow file")
        gated.let(100)
        await node.propose(RetryJob(name))
        assert (await finished(node, name)).state is JobState.SUCCEEDED
        assert not running.done()
    assert "job.file_unreadable" in caplog.text


async def test_a_file_that_does_not_come_holds_up_no_other_job(tmp_path: Path) -> None:
    gated = Gated(tasks=5)
    async with one_node(tmp_path) as node, trainer(node, 1, gated):
        name = await begun_and_sealed(node, gated, done=5)
        node.alone.silent = True
        await node.blobs.remove(node.job(name).results)
        await node.propose(RetryJob(name))
        gated.let(100)
        await node.submit(JobSpec(datasets=["iris"], models=["GaussianNB"]), "next")
        assert (await finished(node, "next")).state is JobState.SUCCEEDED
        assert node.job(name).state is JobState.QUEUED


async def test_a_job_of_which_the_file_is_gone_is_run_again(tmp_path: Path) -> None:
    """No member holds it any more: it is better to fit again than to wait for ever."""
    async with one_node(tmp_path) as node:
        await node.add_dataset("iris", iris_csv())
        spec = JobSpec(datasets=["iris"], models=["GaussianNB"], cv=CvSpec(folds=3))
        name = await node.submit(spec, "lost")
        async with trainer(node, 1, Halting(tasks=1)):
            await node.wait_for(lambda: len(folds(node.job(name))) == 1)
            await node.propose(CancelJob(name))
        await node.seal(name, keep=())
        results = node.job(name).results
        await node.blobs.remove(results)
        await node.propose(DropBlobs(ME, (results,)), BeginEpoch(2, ME), RetryJob(name))
        async with trainer(node, 2):
            assert (await finished(node, name)).state is JobState.SUCCEEDED


async def test_failing_slow_and_hungry_candidates_do_not_hurt_the_others(tmp_path: Path) -> None:
    executor = Hasty("0.1")
    async with one_node(tmp_path) as node, trainer(node, 1, executor):
        await node.add_dataset("iris", iris_csv())
        bad = CandidateSpec(estimator="KNeighborsClassifier", params={"n_neighbors": 1000})
        spec = JobSpec(
            datasets=["iris"],
            models=[bad, SLOW, "GaussianNB"],
            cv=CvSpec(folds=2),
            limits=LimitSpec(fit_seconds=120.0),
            publish=PublishSpec(when="never"),
        )
        await node.submit(spec, "mixed")
        job = await finished(node, "mixed")
        assert job.state is JobState.SUCCEEDED
        wrong, slow_one, good = (job.candidates[f"0.{n}"] for n in range(3))  # type: ignore[index]
        assert wrong.state is CandidateState.FAILED
        assert "n_neighbors" in wrong.reason
        assert slow_one.state is CandidateState.FAILED
        assert slow_one.reason == "fit took longer than 0.5 s"
        assert executor.limits == {120.0}
        assert job.units[0].best == good.id
        assert not node.log.state.models


async def test_cancelled_job_stops_and_leaves_no_process_busy(tmp_path: Path) -> None:
    async with one_node(tmp_path) as node, trainer(node, 1):
        await node.add_dataset("iris", iris_csv())
        name = await node.submit(JobSpec(datasets=["iris"], models=[SLOW]), "slow")
        await node.wait_for(lambda: bool(node.alone.reports) and node.alone.reports[-1].cpus_used > 0)
        await node.propose(CancelJob(name))
        await node.wait_for(lambda: node.alone.reports[-1].cpus_used == 0)
        await node.submit(JobSpec(datasets=["iris"], models=["GaussianNB"]), "next")
        assert (await finished(node, "next")).state is JobState.SUCCEEDED
