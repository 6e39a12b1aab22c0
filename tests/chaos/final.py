"""Reads all that the cluster holds at the end of a run, when every fault is healed and every job has ended."""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import cycle
from typing import Any

from tests.chaos.arena import Arena
from tests.chaos.clients import MODEL
from tests.chaos.verdict import Final
from tests.chaos.work import ENDED, JOB_SECONDS
from tests.support.nodes import comparable
from tests.support.wait import wait_for

THROUGH_THE_LOG = "consistency=linearizable"
ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}


def read_all(arena: Arena, aliases: Iterable[str], jobs: Iterable[str], datasets: Iterable[str]) -> tuple[Final, int]:
    """All there is, through the log; waits for the jobs. Also how often they were resumed."""
    tokens = arena.ask(arena.nodes[1], "GET", f"/v1/tokens?{THROUGH_THE_LOG}").body["tokens"]
    seen = {job: _ended(arena, job) for job in jobs}
    states = {job: str(one["state"]) for job, one in seen.items() if one}
    final = Final(
        {alias: _history(arena, alias) for alias in aliases},
        tuple(token["name"] for token in tokens),
        states,
        {job: comparable(arena.leaderboard(job)) for job, state in states.items() if state == "succeeded"},
        _contents(arena, datasets),
    )
    return final, sum(int(one["resumed"]) for one in seen.values() if one)


def unserved(arena: Arena, versions: Sequence[int]) -> list[str]:
    """Published versions that some node does not answer for: their bytes are needed on each."""
    found = []
    for node in arena.nodes:
        for version in versions:
            path = f"/v1/models/{MODEL}/versions/{version}/predict"
            answer = arena.ask(node, "POST", path, {"rows": [ROW]})
            if answer.status != 200:
                found.append(f"lost: {node.name} does not serve version {version}: {answer.status} {answer.body}")
    return found


def _history(arena: Arena, alias: str) -> tuple[str, ...]:
    path = f"/v1/models/{MODEL}/aliases/{alias}/history?{THROUGH_THE_LOG}"
    answer = arena.ask(arena.nodes[0], "GET", path)
    moves: list[dict[str, Any]] = answer.body["history"] if answer.status == 200 else []
    return tuple(move["comment"] for move in reversed(moves))


def _contents(arena: Arena, datasets: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Each from the next node in turn, whether it holds the parts itself or not."""
    found = {}
    for name, node in zip(datasets, cycle(arena.nodes), strict=False):
        told = arena.ask(node, "GET", f"/v1/datasets/{name}?{THROUGH_THE_LOG}")
        if told.status == 200:
            given = arena.ask(node, "GET", f"/v1/datasets/{name}/content")
            sha256 = hashlib.sha256(given.body).hexdigest() if given.status == 200 else f"status {given.status}"
            found[name] = (str(told.body["digest"]), sha256)
    return found


def _ended(arena: Arena, job: str) -> dict[str, Any]:
    """The job when it has ended, or has had `JOB_SECONDS`; empty if there is none."""
    shown: dict[str, Any] = {}

    def ended() -> bool:
        answer = arena.ask(arena.nodes[2], "GET", f"/v1/jobs/{job}?{THROUGH_THE_LOG}", timeout=10)
        shown.update(answer.body if answer.status == 200 else {})
        return answer.status == 404 or shown.get("state") in ENDED

    try:
        wait_for(f"the end of job {job}", ended, JOB_SECONDS * arena.patience, every=0.2)
    except AssertionError:
        return shown  # the verdict names its state
    return shown
