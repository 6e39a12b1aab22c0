"""What a large job costs the log: a thousand candidates of five folds each, with and without curves, and a hundred such
jobs that have ended.

    python -m benchmarks.ledger [--candidates 1000] [--jobs 100]

The trainer, the recorder, the rules, the blob store and the local socket are real; the fits take no time, so that what
is left is the ledger. Prints each figure beside its bound. The last job is the dearest for the log: with slow fits each
result comes alone (here they take milliseconds, and the recorder gathers one at a time).
"""

import argparse
import asyncio
import logging
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
from immutables import Map

from consensus.codec import encode_entry, encode_state
from consensus.levels import LEVEL
from consensus.messages import (
    AddCandidates,
    BeginEpoch,
    Command,
    FinishUnit,
    FoldTally,
    HeldBlob,
    NewCandidate,
    RecordFolds,
    SealJob,
    SubmitJob,
)
from consensus.state import CandidateId, ClusterState, JobId, JobState, Json, Tally, Unit
from parvada.schema import CvSpec, JobSpec, PublishSpec, SearchSpec, UnitDetail
from tests.integration.training.cluster import OneNode, one_node, trainer
from tests.unit.node.http.facts import dataset, to_level
from tests.unit.node.http.world import World, world
from training import archive, recorder, trainer as trainer_module
from training.inline import InlineExecutor
from training.plan import plan
from training.ports import Capacity, Task
from training.results import Curve, FoldDetail, encode_detail
from training.tasks import FoldOutcome, FoldTask, RefitOutcome

FOLDS = 5
CPUS = 2
POINTS = 200
METRICS = ("accuracy", "balanced_accuracy", "f1_macro", "log_loss", "roc_auc_ovr")
MEGABYTE = 1_000_000


class Instant(InlineExecutor):
    """Fits that take no time. `curves`: so many of 200 points come with each fold."""

    def __init__(self, curves: int, slow: bool) -> None:
        super().__init__(workers=CPUS)
        self._curves, self._slow = curves, slow
        self._number = 0

    async def start(self) -> None:
        return

    def capacity(self) -> Capacity:
        return Capacity(nodes=1, cpus=float(CPUS), cpus_used=0.0)

    async def share(self, key: str, parts: Sequence[Path]) -> None:
        return

    async def run(self, task: Task, *more: Any) -> object:
        await asyncio.sleep(0.002 + self._number % 5 / 1000 if self._slow else 0)
        if not isinstance(task.payload, FoldTask):
            return RefitOutcome(holdout={"accuracy": 0.9}, fit_seconds=0.1)
        self._number += 1
        scores = {name: (self._number * 7919 % 9973) / 9973 + index for index, name in enumerate(METRICS)}
        detail = FoldDetail(scores, tuple(_curve(self._number, number) for number in range(self._curves)))
        return FoldOutcome(scores, 0.123456789, 1.23456789, detail=encode_detail(detail))


def _curve(seed: int, number: int) -> Curve:
    y = tuple(1 / (1 + point + number) + (seed * point * 7919 % 9973) / 1e6 for point in range(POINTS))
    return Curve(
        "iterations", "train" if number else "validation", METRICS[number], tuple(map(float, range(POINTS))), y
    )


class Timed:
    """Sums the processor time of a function's calls."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self.seconds = 0.0
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        began = time.thread_time()
        try:
            return self._function(*arguments)
        finally:
            self.seconds += time.thread_time() - began
            self.calls += 1


# ---------------------------------------------------------------- one job, from its submission to its file
async def one_job(candidates: int, curves: int, *, slow: bool = False) -> None:
    how = "each result alone" if slow else f"{curves or 'no'} curves of {POINTS} points a fold"
    print(f"\none job of {candidates} candidates x {FOLDS} folds, {how}")
    with tempfile.TemporaryDirectory() as folder:
        async with one_node(Path(folder)) as node:
            await node.add_dataset("iris", "a,b,y\n" + "".join(f"{n},{n % 7},{'xyz'[n % 3]}\n" for n in range(300)))
            timed = Timed(plan)
            most = 1 if slow else recorder.GATHER_RESULTS
            with (
                mock.patch.object(trainer_module, "plan", timed),
                mock.patch.object(recorder, "GATHER_RESULTS", most),
            ):
                await _run(node, candidates, Instant(curves, slow), timed, 4.0 if curves else 3.0)


async def _run(node: OneNode, candidates: int, executor: Instant, timed: Timed, log_bound: float) -> None:
    before, first = node.log.state, len(node.network.committed)
    spec = JobSpec(
        datasets=["iris"],
        models=["HistGradientBoostingClassifier"],
        search=SearchSpec(method="random", trials=candidates),
        cv=CvSpec(folds=FOLDS),
        publish=PublishSpec(when="never"),
    )
    largest = before
    began = time.monotonic()
    async with trainer(node, 1, executor):
        job = await node.submit(spec, "large")
        while node.job(job).state not in (JobState.SUCCEEDED, JobState.FAILED):
            largest = node.log.state
            await asyncio.sleep(0.01)
    wall = time.monotonic() - began
    found = node.job(job)
    assert found.state is JobState.SUCCEEDED, found.error
    entries = [entry for _, entry in node.network.committed[first:]]
    written = Counter[str]()
    for entry in entries:
        written[type(entry.command).__name__] += len(encode_entry(entry))
    told("plan, over the whole job", timed.seconds, "s", 2.0, f"{timed.calls} calls, the job took {wall:.1f} s")
    most = ", ".join(f"{name} {size / MEGABYTE:.2f}" for name, size in written.most_common(3))
    total = sum(written.values()) / MEGABYTE
    told("log", total, "MB", log_bound, f"{len(entries)} entries; {most}")
    told("snapshot while it runs", _share(largest, before) / MEGABYTE, "MB", 0.5, "its jobs and blobs")
    told("encode the whole state", _encode_ms(largest), "ms", 50.0, f"{len(encode_state(largest)) / MEGABYTE:.2f} MB")
    print(f"  {len(found.segments)} segments, {sum(node.blobs.size(digest) for digest in found.segments)} bytes")
    out = node.root / "results.arrow"
    began = time.monotonic()
    sealed = archive.seal(found, [str(node.blobs.path(digest)) for digest in found.segments], "", str(out))
    took = time.monotonic() - began
    print(f"  sealed in {took:.1f} s: {sealed.folds} folds, {out.stat().st_size} bytes, {sealed.lost} lost")


def _share(state: ClusterState, before: ClusterState) -> int:
    """What jobs and blobs add to a snapshot. Recent commands and the audit are there whatever they are of."""

    def plain(one: ClusterState) -> int:
        return len(encode_state(msgspec.structs.replace(one, recent=Map(), recent_before=Map(), audit=Map())))

    return plain(state) - plain(before)


def _encode_ms(state: ClusterState) -> float:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        encode_state(state)
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


# ---------------------------------------------------------------- a hundred jobs that have ended
async def many_jobs(candidates: int, jobs: int) -> None:
    print(f"\n{jobs} such jobs, ended and sealed")
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as folder:
        async with world(Path(folder)) as api:
            await to_level(api, LEVEL)
            await dataset(api, "data")
            before = api.state
            for number in range(jobs):
                await _ended(api, JobId(f"job-{number:04}"), candidates)
            state = api.state
            told("snapshot", _share(state, before) / MEGABYTE, "MB", 5.0, f"{jobs} jobs and their blobs")
            told(
                "encode the whole state", _encode_ms(state), "ms", 50.0, f"{len(encode_state(state)) / MEGABYTE:.2f} MB"
            )
            times = []
            for _ in range(30):
                began = time.perf_counter()
                page = await api.call("GET", f"/v1/jobs?limit={min(jobs, 1000)}")
                times.append((time.perf_counter() - began) * 1000)
                assert len(page.json["jobs"]) == min(jobs, 1000)
            told("GET /v1/jobs", statistics.median(times), "ms", 5.0, f"p95 {sorted(times)[28]:.1f} ms, over loopback")


async def _ended(api: World, job: JobId, candidates: int) -> None:
    """As a trainer and the archivist leave it."""
    epoch = api.state.epoch.number + 1
    detail = UnitDetail(
        folds=FOLDS, repeats=1, holdout=0.2, seed=0, publish_model="m", publish_alias="production", publish_when="never"
    )
    spec = JobSpec(datasets=["data"], models=["HistGradientBoostingClassifier"])
    tally = Tally(candidates, FOLDS, greater_is_better=True)
    unit = Unit("data", 1, "kind", "binary", "roc_auc", _json(detail), tally=tally)
    names = [CandidateId(f"0.{number}") for number in range(candidates)]
    params = _json(
        {"max_iter": 80, "learning_rate": 0.12345678901234, "max_leaf_nodes": 31, "preprocess__scale": "none"}
    )
    made = tuple(NewCandidate(name, 0, "HistGradientBoostingClassifier", params, 123456789, FOLDS) for name in names)
    folds = [
        FoldTally(name, fold, (number * 7919 + fold) % 9973 / 9973, 0.123456789, 1.23456789)
        for number, name in enumerate(names)
        for fold in range(FOLDS)
    ]
    commands: list[Command] = [BeginEpoch(epoch, api.flock.first.id), SubmitJob(job, "", _json(spec), (unit,), ())]
    commands += [
        AddCandidates(epoch, job, 0, first, made[first : first + 500], first + 500 >= candidates)
        for first in range(0, candidates, 500)
    ]
    commands += [RecordFolds(epoch, job, tallies=tuple(folds[n : n + 500])) for n in range(0, len(folds), 500)]
    for command in commands:
        await api.log.propose(command, actor="trainer")
    best = api.state.jobs[job].units[0].tally
    assert best is not None
    await api.log.propose(FinishUnit(epoch, job, 0, CandidateId(f"0.{best.best}")), actor="trainer")
    found = api.state.jobs[job]
    digest = await api.flock.first.keep(f"the results of {job}".encode())
    results = HeldBlob(digest, len(f"the results of {job}"), (api.flock.first.id,))
    await api.log.propose(SealJob(job, found.ended_at, results, archive.best(found)), actor="leader")


def _json(value: object) -> Json:
    return Json(msgspec.json.encode(value))


def told(what: str, value: float, unit: str, bound: float, more: str) -> None:
    mark = "" if value <= bound else "  BEYOND IT"
    print(f"  {what:<26} {value:8.2f} {unit:<2} (bound {bound:g}){mark}  {more}")


async def main(candidates: int, jobs: int) -> None:
    await one_job(candidates, 0)
    await one_job(candidates, 3)
    await one_job(candidates, 0, slow=True)
    await many_jobs(candidates, jobs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=100)
    given = parser.parse_args()
    asyncio.run(main(given.candidates, given.jobs))
