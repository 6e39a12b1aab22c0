"""Thousands of seeds, and the proof that the simulator can fail: against the library as shipped, and with each of
the rules of ours taken out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.runner import Ledger, run_many, search

SEEDS = 2000
MUTATION_RUNS = 40
pytestmark = pytest.mark.timeout(300)
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(900)
def test_thousands_of_clusters_keep_every_promise() -> None:
    ledger, broken = Ledger(), []
    for outcome in run_many(0, SEEDS):
        ledger.add(outcome)
        if outcome.problem:
            broken.append(outcome)
    assert broken == [], "replay with python -m tests.simulation --transcript SEED"
    assert ledger.acknowledged > 50 * SEEDS


@pytest.mark.parametrize("mutation", sorted(MUTATIONS))
def test_a_missing_rule_is_noticed(mutation: str) -> None:
    assert search(mutation, MUTATION_RUNS) is not None


def _program(*arguments: str, hash_seed: int = 0) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
        capture_output=True,
        text=True,
        check=True,
        timeout=240,
    )
    return done.stdout.splitlines()


def test_the_library_as_shipped_loses_acknowledged_writes() -> None:
    told = _program("tests.simulation.stock", "--first", "45", "--seeds", "40")
    assert any("LOST" in line for line in told), told


def test_a_seed_is_the_same_run_whatever_the_order_of_sets() -> None:
    first = _program("tests.simulation", "--transcript", "7", hash_seed=1)
    assert first == _program("tests.simulation", "--transcript", "7", hash_seed=2)
    assert len(first) > 20


def test_many_seeds_end_with_a_ledger() -> None:
    assert _program("tests.simulation", "--seeds", "4", "--first", "20")[-1].startswith("4 seeds, 0 violations, ")
