"""Training beside the load: the models whose aliases are moved, and jobs that must survive every fault."""

import contextlib
import threading
from typing import Any

from tests.chaos.clients import MODEL, persist
from tests.chaos.record import Recorder
from tests.support.data import iris_csv, wine_csv
from tests.support.flock import Flock
from tests.support.wait import wait_for

VERSIONS = 4
JOB_SECONDS = 150.0
ENDED = ("succeeded", "failed", "cancelled")


def prepare(flock: Flock) -> list[int]:
    """Datasets, and a model with several versions that every node knows; returns their numbers."""
    home = flock.nodes[0]
    flock.push(home, "iris", iris_csv(), "?target=species")
    flock.push(home, "wine", wine_csv(), "?target=cultivar")
    spec: dict[str, Any] = {"datasets": ["iris"], "models": ["GaussianNB"], "cv": {"folds": 2}}
    publish = {"model": MODEL, "alias": "production", "when": "always"}
    jobs = [flock.submit(home, {**spec, "seed": number, "publish": publish}) for number in range(VERSIONS)]
    for job in jobs:
        assert flock.wait_for_job(job, JOB_SECONDS)["state"] == "succeeded"
    versions = list(range(1, VERSIONS + 1))
    path = f"/v1/models/{MODEL}"
    for node in flock.nodes:
        wait_for(
            f"{node.name} to know the versions",
            lambda node=node: sorted(flock.ask(node, "GET", path).body["versions"]) == versions,  # type: ignore[misc]
        )
    return versions


class JobStream(threading.Thread):
    """One job after the other, each long enough to meet a fault."""

    def __init__(self, flock: Flock, record: Recorder, stopping: threading.Event, prefix: str, repeats: int) -> None:
        super().__init__(name="jobs", daemon=True)
        self._flock = flock
        self._record = record
        self._stopping = stopping
        self._prefix = prefix
        self._repeats = repeats

    def run(self) -> None:
        number = 0
        while not self._stopping.is_set():
            number += 1
            home = self._flock.nodes[number % len(self._flock.nodes)]
            key = f"{self._prefix}-job-{number}"
            answer = persist(self._flock, home, self._record, "POST", "/v1/jobs", self._spec(number), key, {202})
            if answer is None:
                self._record.count("outcome unknown")
                continue
            job = str(answer.body["id"])
            self._record.job(job)
            while not self._stopping.wait(0.5) and not self._has_ended(job):
                pass

    def _spec(self, number: int) -> dict[str, Any]:
        models = ["GaussianNB", "DecisionTreeClassifier", "LogisticRegression", "RandomForestClassifier"]
        folds = {"folds": 5, "repeats": self._repeats}
        return {"datasets": ["wine"], "models": models, "cv": folds, "seed": number, "publish": {"when": "never"}}

    def _has_ended(self, job: str) -> bool:
        for node in self._flock.nodes:
            with contextlib.suppress(OSError):
                answer = self._flock.ask(node, "GET", f"/v1/jobs/{job}", timeout=2.0)
                if answer.status == 200:
                    return answer.body["state"] in ENDED
        return False
