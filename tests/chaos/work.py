"""Training beside the load: the models whose aliases are moved, and jobs that must survive every fault."""

import contextlib
import threading
from typing import Any

import msgspec

from tests.chaos.arena import Arena
from tests.chaos.clients import MODEL
from tests.chaos.record import Recorder
from tests.chaos.wire import persist
from tests.support.data import iris_csv, wine_csv
from tests.support.nodes import comparable
from tests.support.wait import wait_for

VERSIONS = 4
JOB_SECONDS = 150.0
ENDED = ("succeeded", "failed", "cancelled")


class Stage(msgspec.Struct, frozen=True):
    """What all runs on one arena share. `leaderboard`: of the job of `JobStream`, run in peace."""

    versions: list[int]
    leaderboard: list[tuple[Any, ...]]
    repeats: int


def prepare(arena: Arena, repeats: int) -> Stage:
    """Datasets, a model with several versions that every node knows, and the job once without faults."""
    home = arena.nodes[0]
    arena.push(home, "iris", iris_csv(), "?target=species")
    arena.push(home, "wine", wine_csv(), "?target=cultivar")
    spec: dict[str, Any] = {"datasets": ["iris"], "models": ["GaussianNB"], "cv": {"folds": 2}}
    publish = {"model": MODEL, "alias": "production", "when": "always"}
    jobs = [arena.submit(home, {**spec, "seed": number, "publish": publish}) for number in range(VERSIONS)]
    jobs.append(arena.submit(home, job_spec(repeats)))
    for job in jobs:
        assert arena.wait_for_job(job, JOB_SECONDS * arena.patience)["state"] == "succeeded"
    versions = list(range(1, VERSIONS + 1))
    path = f"/v1/models/{MODEL}"
    for node in arena.nodes:
        wait_for(
            f"{node.name} to know the versions",
            lambda node=node: sorted(arena.ask(node, "GET", path).body["versions"]) == versions,  # type: ignore[misc]
        )
    return Stage(versions, comparable(arena.leaderboard(jobs[-1])), repeats)


def job_spec(repeats: int) -> dict[str, Any]:
    """Of every job that is disturbed: the same each time, so that each must end with the same figures."""
    models = ["GaussianNB", "DecisionTreeClassifier", "LogisticRegression", "RandomForestClassifier"]
    folds = {"folds": 5, "repeats": repeats}
    return {"datasets": ["wine"], "models": models, "cv": folds, "seed": 1, "publish": {"when": "never"}}


class JobStream(threading.Thread):
    """One job after the other, each long enough to meet a fault."""

    def __init__(self, arena: Arena, record: Recorder, stopping: threading.Event, prefix: str, repeats: int) -> None:
        super().__init__(name="jobs", daemon=True)
        self._arena = arena
        self._record = record
        self._stopping = stopping
        self._prefix = prefix
        self._repeats = repeats

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            home = self._arena.nodes[number % len(self._arena.nodes)]
            key = f"{self._prefix}-job-{number}"
            answer = persist(self._arena, home, self._record, "POST", "/v1/jobs", job_spec(self._repeats), key, {202})
            if answer is None:
                self._record.count("outcome unknown")
                continue
            job = str(answer.body["id"])
            self._record.job(job)
            while not self._stopping.wait(0.5) and not self._has_ended(job):
                pass

    def _has_ended(self, job: str) -> bool:
        for node in self._arena.nodes:
            with contextlib.suppress(OSError):
                answer = self._arena.ask(node, "GET", f"/v1/jobs/{job}", timeout=2.0)
                if answer.status == 200:
                    return answer.body["state"] in ENDED
        return False
