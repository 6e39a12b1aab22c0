"""A short run of chaos: real processes, all faults that this machine allows, and not one promise broken."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.chaos import partition
from tests.chaos.ledger import Ledger

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_no_acknowledged_write_is_lost_and_history_is_linearizable(tmp_path: Path) -> None:
    """In a process of its own, which enters a network of its own where it may."""
    written = tmp_path / "ledger.json"
    command = [sys.executable, "-m", "tests.chaos", "--seconds", "8", "--repeats", "1", "--json", str(written)]
    # Of a run that hangs, its nodes are stopped too: SIGTERM first.
    bounded = ["timeout", "--kill-after=45", "220", *command]
    done = subprocess.run(bounded, capture_output=True, text=True, timeout=280, check=False)
    assert written.exists(), done.stdout + done.stderr
    ledger = msgspec.json.decode(written.read_bytes(), type=Ledger)
    assert ledger.violations == [], done.stdout
    assert ledger.linearizable
    assert (ledger.lost, ledger.unknown) == (0, 0), done.stdout
    # It was chaos, and there was a load.
    assert ledger.kills_of_leader >= 1, done.stdout
    assert ledger.kills_of_all >= 1, done.stdout
    assert ledger.partitions >= 1 or ledger.pauses >= 1, done.stdout
    assert ledger.partitions >= 1 or partition.why_not(), done.stdout
    assert ledger.acknowledged > 50, done.stdout
    assert ledger.linearizable_reads > 20, done.stdout
    assert ledger.local_reads > 30, done.stdout
    assert 1 <= ledger.jobs == ledger.jobs_succeeded, done.stdout
