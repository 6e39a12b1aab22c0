"""Many seeds on all cores: one process a core, each taking a block of seeds at a time."""

import itertools
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

import msgspec

from tests.simulation.mutations import MUTATIONS
from tests.simulation.scenario import STEPS, Outcome, run_seed, scenario

_BLOCK = 10


class Ledger(msgspec.Struct):
    """The sum of many runs."""

    seeds: int = 0
    violations: int = 0
    acknowledged: int = 0

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.violations += bool(outcome.problem)
        self.acknowledged += outcome.acknowledged

    def __str__(self) -> str:
        return f"{self.seeds} seeds, {self.violations} violations, {self.acknowledged} acknowledged writes"


def run_block(first: int, count: int, steps: int = STEPS) -> list[Outcome]:
    return [run_seed(seed, steps) for seed in range(first, first + count)]


def run_many(first: int, count: int, *, processes: int = 0, steps: int = STEPS) -> Iterator[Outcome]:
    """The outcome of each seed, in the order in which they end. `processes` 0: one a core."""
    with _pool(processes or os.cpu_count() or 1) as pool:
        blocks = [
            pool.submit(run_block, start, min(_BLOCK, first + count - start), steps)
            for start in range(first, first + count, _BLOCK)
        ]
        for block in as_completed(blocks):
            yield from block.result()


def search(mutation: str, runs: int) -> Outcome | None:
    """The first run in which a promise of safety breaks once a rule was taken out, None if none does."""
    changed = MUTATIONS[mutation]
    fitting = (seed for seed in itertools.count() if changed.kind in ("", scenario(seed).kind))
    with changed.applied():
        for seed in itertools.islice(fitting, runs):
            outcome = run_seed(seed)
            # A run that only took too long to recover would be a weak witness.
            if outcome.problem and "not reached" not in outcome.problem:
                return outcome
    return None


def _pool(processes: int) -> ProcessPoolExecutor:
    # Spawned: a fork of a test process would bring its threads' locks along.
    return ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
