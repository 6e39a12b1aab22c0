"""One run: load on all nodes, faults, healing, and the verdict over what was recorded."""

import threading
import time
from collections.abc import Callable

import msgspec

from tests.chaos import verdict
from tests.chaos.arena import Arena
from tests.chaos.clients import Client
from tests.chaos.final import read_all, unserved
from tests.chaos.ledger import Ledger
from tests.chaos.nemesis import Nemesis
from tests.chaos.record import Recorder
from tests.chaos.work import JobStream, Stage

CLIENTS = 6
ALIASES = 4
JOIN_SECONDS = 60.0


class Setting(msgspec.Struct, frozen=True):
    """`power_cuts`: instead of random faults, kill all that often, each in the middle of a job."""

    name: str
    seconds: float
    seed: int
    power_cuts: int = 0


def run(arena: Arena, setting: Setting, stage: Stage) -> Ledger:
    """Load and faults for so many seconds, then peace, then the verdict."""
    begun = time.monotonic()
    record, stopping, halting = Recorder(), threading.Event(), threading.Event()
    nemesis = Nemesis(arena, setting.seed)
    aliases = [f"{setting.name}-{number}" for number in range(ALIASES)]
    failures: list[BaseException] = []
    loads = [
        _guarded(client.run, f"client-{number}", failures)
        for number, client in enumerate(_clients(arena, setting, stage, aliases, record, stopping))
    ]
    loads.append(_guarded(JobStream(arena, record, stopping, setting.name, stage.repeats).run, "jobs", failures))
    strikes = (lambda: nemesis.power_cuts(setting.power_cuts)) if setting.power_cuts else (lambda: nemesis.run(halting))
    striker = _guarded(strikes, "nemesis", failures)
    try:
        striker.join(None if setting.power_cuts else setting.seconds)
    finally:
        halting.set()
        striker.join(JOIN_SECONDS * arena.patience)
        if not failures:
            _calm(arena)
        stopping.set()
        for load in loads:
            load.join(JOIN_SECONDS * arena.patience)
    if failures:
        raise failures[0]
    assert not any(load.is_alive() for load in [*loads, striker]), "a client hangs, or a fault does not end"
    nemesis.watch({node.name for node in arena.nodes})
    ledger = _judged(arena, record, aliases, stage)
    ledger.violations += nemesis.surprises
    ledger.seconds = time.monotonic() - begun
    _count_faults(ledger, nemesis)
    return ledger


def _clients(
    arena: Arena, setting: Setting, stage: Stage, aliases: list[str], record: Recorder, stopping: threading.Event
) -> list[Client]:
    return [
        Client(
            arena,
            f"{setting.name}-c{number}",
            arena.nodes[number % len(arena.nodes)],
            aliases,
            stage.versions,
            record,
            stopping,
            setting.seed * 1000 + number,
        )
        for number in range(CLIENTS)
    ]


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


def _calm(arena: Arena) -> None:
    arena.wait_ready(40.0 * arena.patience)
    arena.wait_for_leader(20.0 * arena.patience)
    arena.wait_for_voters(3, 40.0 * arena.patience)


def _judged(arena: Arena, record: Recorder, aliases: list[str], stage: Stage) -> Ledger:
    final, resumed = read_all(arena, aliases, record.jobs, [upload.name for upload in record.uploads])
    broken = verdict.linearizability(record.operations)
    lost = [
        *verdict.lost(record.moves, record.tokens, record.jobs, final),
        *verdict.spoilt(record.uploads, final),
        *unserved(arena, stage.versions),
    ]
    others = [
        *verdict.repeated(record.moves, final),
        *verdict.invented(record.asked, final),
        *verdict.prefixes(record.sights, final),
        *verdict.indexes(record.applied),
        *verdict.unfinished(record.jobs, final),
        *verdict.differing(stage.leaderboard, final),
        *(f"unexpected: {one}" for one in record.unexpected),
    ]
    ledger = _counted(record)
    ledger.jobs_succeeded = sum(state == "succeeded" for state in final.jobs.values())
    ledger.resumed, ledger.lost, ledger.linearizable = resumed, len(lost), not broken
    ledger.violations = [*broken, *lost, *others]
    return ledger


def _counted(record: Recorder) -> Ledger:
    counts = record.counts
    return Ledger(
        runs=1,
        longest_unavailability=verdict.longest_wait(record.answered),
        operations=len(record.operations),
        writes=counts["writes"],
        acknowledged=counts["acknowledged"],
        refused=counts["refused"],
        repeated=sum(count for what, count in counts.items() if what.startswith("writes repeated")),
        given_up=counts["given up"],
        unknown=counts["outcome unknown"],
        linearizable_reads=sum(operation.action == "read" for operation in record.operations) // ALIASES,
        local_reads=len(record.sights) + len(record.applied),
        reads_set_back_by_restart=verdict.set_back_by_restarts(record.applied),
        datasets=len(record.uploads),
        jobs=len(record.jobs),
    )


def _count_faults(ledger: Ledger, nemesis: Nemesis) -> None:
    counts = nemesis.counts
    ledger.kills, ledger.pauses, ledger.partitions = counts["kills"], counts["pauses"], counts["partitions"]
    ledger.kills_of_one, ledger.kills_of_leader = counts["kills of one"], counts["kills of the leader"]
    ledger.kills_of_all, ledger.kills_of_all_in_mid_job = counts["kills of all"], counts["kills of all in mid job"]
