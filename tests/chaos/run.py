"""One run: load on all nodes, faults, healing, and the verdict over what was recorded."""

import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from tests.chaos import verdict
from tests.chaos.clients import MODEL, Client
from tests.chaos.nemesis import Nemesis
from tests.chaos.partition import Partition
from tests.chaos.record import Recorder
from tests.chaos.work import ENDED, JOB_SECONDS, JobStream
from tests.support.flock import Flock
from tests.support.wait import wait_for

CLIENTS = 6
ALIASES = 4
JOIN_SECONDS = 60.0


class Ledger(msgspec.Struct):
    """Sums over runs. `operations` on registers, as checked: a read of a model reads all its aliases. `acknowledged`:
    writes answered with 2xx; `refused`: by compare-and-set; `repeated`: tries without an answer or with 404, 429, 503;
    `lost`: acknowledged items that are not there in the end."""

    runs: int = 0
    seconds: float = 0.0
    kills: int = 0
    kills_of_leader: int = 0
    kills_of_all: int = 0
    pauses: int = 0
    partitions: int = 0
    operations: int = 0
    writes: int = 0
    acknowledged: int = 0
    refused: int = 0
    repeated: int = 0
    unknown: int = 0
    linearizable_reads: int = 0
    local_reads: int = 0
    reads_set_back_by_restart: int = 0
    jobs: int = 0
    resumed: int = 0
    lost: int = 0
    linearizable: bool = True
    violations: list[str] = []

    def __iadd__(self, other: "Ledger") -> "Ledger":
        for field in self.__struct_fields__:
            if field != "linearizable":
                setattr(self, field, getattr(self, field) + getattr(other, field))
        self.linearizable = self.linearizable and other.linearizable
        return self

    def text(self) -> str:
        """Names and figures in two columns, then the violations."""
        rows = {field.replace("_", " "): getattr(self, field) for field in self.__struct_fields__[:-2]}
        rows = {name: f"{value:.0f}" for name, value in rows.items()}
        rows["linearizable"] = "yes" if self.linearizable else "NO"
        rows["violations"] = str(len(self.violations))
        lines = [f"{name:<28}{value:>8}" for name, value in rows.items()]
        return "\n".join([*lines, *(f"  {one}" for one in self.violations[:50])])


class Setting(msgspec.Struct, frozen=True):
    """`power_cuts`: instead of random faults, kill all that often, each in the middle of a job."""

    name: str
    seconds: float
    seed: int
    versions: list[int]
    repeats: int = 3
    power_cuts: int = 0


def run(flock: Flock, setting: Setting, partition: Partition | None) -> Ledger:
    """Load and faults for so many seconds, then peace, then the verdict."""
    begun = time.monotonic()
    record, stopping, halting = Recorder(), threading.Event(), threading.Event()
    nemesis = Nemesis(flock, setting.seed, partition)
    aliases = [f"{setting.name}-{number}" for number in range(ALIASES)]
    clients = [
        Client(
            flock,
            f"{setting.name}-c{number}",
            flock.nodes[number % len(flock.nodes)],
            aliases,
            setting.versions,
            record,
            stopping,
            setting.seed * 1000 + number,
        )
        for number in range(CLIENTS)
    ]
    failures: list[BaseException] = []
    loads = [_guarded(client.run, f"client-{number}", failures) for number, client in enumerate(clients)]
    loads.append(_guarded(JobStream(flock, record, stopping, setting.name, setting.repeats).run, "jobs", failures))
    strikes = (lambda: nemesis.power_cuts(setting.power_cuts)) if setting.power_cuts else (lambda: nemesis.run(halting))
    striker = _guarded(strikes, "nemesis", failures)
    try:
        striker.join(None if setting.power_cuts else setting.seconds)
    finally:
        halting.set()
        striker.join(JOIN_SECONDS)
        _calm(flock)
        stopping.set()
        for load in loads:
            load.join(JOIN_SECONDS)
    if failures:
        raise failures[0]
    assert not any(load.is_alive() for load in loads), "a client hangs"
    final, resumed = _final(flock, aliases, record.jobs)
    ledger = _judge(record, final)
    ledger.seconds, ledger.resumed = time.monotonic() - begun, resumed
    _count_faults(ledger, nemesis)
    return ledger


def _guarded(function: Callable[[], None], name: str, failures: list[BaseException]) -> threading.Thread:
    """A started thread whose failure is not lost."""

    def body() -> None:
        try:
            function()
        except BaseException as error:  # told by the main thread
            failures.append(error)

    thread = threading.Thread(target=body, name=name, daemon=True)
    thread.start()
    return thread


def _calm(flock: Flock) -> None:
    flock.wait_ready()
    flock.wait_for_leader()
    flock.wait_for_voters(3)


def _final(flock: Flock, aliases: list[str], jobs: list[str]) -> tuple[verdict.Final, int]:
    """All there is, through the log; waits for the jobs. Also how often they were resumed."""
    histories = {}
    for alias in aliases:
        path = f"/v1/models/{MODEL}/aliases/{alias}/history"
        answer = flock.ask(flock.nodes[0], "GET", f"{path}?consistency=linearizable")
        moves: list[dict[str, Any]] = answer.body["history"] if answer.status == 200 else []
        histories[alias] = tuple(move["comment"] for move in reversed(moves))
    tokens = flock.ask(flock.nodes[1], "GET", "/v1/tokens?consistency=linearizable").body["tokens"]
    seen = {job: _ended(flock, job) for job in jobs}
    states = {job: str(one["state"]) for job, one in seen.items() if one}
    resumed = sum(int(one["resumed"]) for one in seen.values() if one)
    return verdict.Final(histories, tuple(token["name"] for token in tokens), states), resumed


def _ended(flock: Flock, job: str) -> dict[str, Any]:
    """The job when it has ended, or has had `JOB_SECONDS`; empty if there is none."""
    shown: dict[str, Any] = {}

    def ended() -> bool:
        answer = flock.ask(flock.nodes[2], "GET", f"/v1/jobs/{job}?consistency=linearizable", timeout=10)
        shown.update(answer.body if answer.status == 200 else {})
        return answer.status == 404 or shown.get("state") in ENDED

    try:
        wait_for(f"the end of job {job}", ended, JOB_SECONDS, every=0.2)
    except AssertionError:
        return shown  # the verdict names its state
    return shown


def _judge(record: Recorder, final: verdict.Final) -> Ledger:
    broken = verdict.linearizability(record.operations)
    lost = verdict.lost(record.moves, record.tokens, record.jobs, final)
    others = [
        *verdict.repeated(record.moves, final),
        *verdict.prefixes(record.sights, final),
        *verdict.indexes(record.applied),
        *verdict.unfinished(record.jobs, final),
        *(f"unexpected: {one}" for one in record.unexpected),
    ]
    counts = record.counts
    return Ledger(
        runs=1,
        operations=len(record.operations),
        writes=counts["writes"],
        acknowledged=counts["acknowledged"],
        refused=counts["refused"],
        repeated=sum(count for what, count in counts.items() if what.startswith("writes repeated")),
        unknown=counts["outcome unknown"],
        linearizable_reads=sum(operation.action == "read" for operation in record.operations) // ALIASES,
        local_reads=len(record.sights) + len(record.applied),
        reads_set_back_by_restart=verdict.set_back_by_restarts(record.applied),
        jobs=len(record.jobs),
        lost=len(lost),
        linearizable=not broken,
        violations=[*broken, *lost, *others],
    )


def _count_faults(ledger: Ledger, nemesis: Nemesis) -> None:
    counts = nemesis.counts
    ledger.kills, ledger.pauses, ledger.partitions = counts["kills"], counts["pauses"], counts["partitions"]
    ledger.kills_of_leader, ledger.kills_of_all = counts["kills of the leader"], counts["kills of all"]
