"""The two grounds for chaos, local processes and containers: each is set up, struck run by run, and torn down."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.chaos import partition
from tests.chaos.arena import Arena
from tests.chaos.containers import Containers
from tests.chaos.ledger import Ledger
from tests.chaos.processes import Processes
from tests.chaos.run import Setting, run
from tests.chaos.work import Stage, prepare
from tests.support.compose import Compose
from tests.support.flock import running

RUN_SECONDS = 40.0
"""Of one run; a longer time is cut into runs on the same cluster, each judged by itself."""
CUTS_A_RUN = 4
PROJECT = "parvadachaos"
PORTS = "18300-18599"
"""Every restart takes the next ones."""


class Program(msgspec.Struct, frozen=True):
    """`ray_cuts`: further power cuts with Ray, on containers. `repeats`: of the folds of each job, for its length."""

    seconds: float
    seed: int
    power_cuts: int
    ray_cuts: int = 0
    repeats: int = 3
    partitions: bool = True

    def settings(self) -> Iterator[Setting]:
        """Runs of random faults, then runs of power cuts."""
        left, seed = self.seconds, self.seed
        while left > 0:
            yield Setting(f"r{seed}", min(left, RUN_SECONDS), seed)
            left, seed = left - RUN_SECONDS, seed + 1
        yield from _cuts("p", self.power_cuts, seed)

    def with_ray(self) -> Iterator[Setting]:
        yield from _cuts("y", self.ray_cuts, self.seed + 1000)


def on_processes(program: Program, data: Path | None) -> Ledger:
    """`parvada up` with three nodes, no Ray."""
    reason = partition.why_not() if program.partitions else "not asked for"
    say(f"partitions: {'on' if not reason else 'skipped, ' + reason}")
    with tempfile.TemporaryDirectory(prefix="parvada-chaos-") as folder:
        kept = (data or Path(folder)) / "data"
        with running(kept, 3) as flock:
            arena = Processes(flock, None if reason else partition.Partition(kept))
            return _struck(arena, program.settings(), prepare(arena, program.repeats))


def on_containers(program: Program) -> Ledger:
    """A compose project of three containers, without Ray; then the same, on the same volume, with Ray."""
    project = _project("off")
    project.down(volumes=True)
    project.compose("build", timeout=900)
    total = Ledger()
    try:
        project.up(3)
        arena = Containers(project)
        if not program.partitions:
            arena.ways = ()
        say(f"partitions: {', '.join(arena.ways) or 'not asked for'}")
        stage = prepare(arena, program.repeats)
        total += _struck(arena, program.settings(), stage)
        if program.ray_cuts:
            project = _project("on")
            project.up(3)
            arena = Containers(project)
            arena.wait_for_ray(3, 60.0 * arena.patience)
            total += _struck(arena, program.with_ray(), stage)
    except Exception:
        say(project.logs())  # the containers are gone afterwards
        raise
    finally:
        project.down(volumes=True)
    return total


def say(text: str) -> None:
    """At once, also into a pipe."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _cuts(letter: str, times: int, seed: int) -> Iterator[Setting]:
    for done in range(0, times, CUTS_A_RUN):
        yield Setting(f"{letter}{done}", 0.0, seed + done, min(CUTS_A_RUN, times - done))


def _project(ray: str) -> Compose:
    return Compose(PROJECT, {"PARVADA_RAY": ray, "PARVADA_PORTS": PORTS, "NODES": "3"})


def _struck(arena: Arena, settings: Iterator[Setting], stage: Stage) -> Ledger:
    total = Ledger()
    for setting in settings:
        ledger = run(arena, setting, stage)
        say(
            f"{setting.name} seed {setting.seed}: {ledger.kills} kills, {ledger.pauses} pauses, {ledger.partitions} "
            f"partitions, {ledger.acknowledged} acknowledged, {ledger.given_up} given up, {ledger.lost} lost, "
            f"{ledger.resumed} resumed, {len(ledger.violations)} violations, {ledger.seconds:.0f} s"
        )
        for violation in ledger.violations:
            say(f"  {violation}")
        total += ledger
    return total
