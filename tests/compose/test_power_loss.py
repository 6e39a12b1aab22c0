"""The power goes while clients write and a job trains on Ray: all containers die by kill -9 in one moment. What was
acknowledged is there afterwards, and the job ends with the figures of an undisturbed one. `make chaos` does more."""

from collections.abc import Iterator

import pytest

from tests.chaos.containers import Containers
from tests.chaos.ledger import table
from tests.chaos.run import Setting, run
from tests.chaos.work import prepare
from tests.compose.conftest import QUICK, Started
from tests.support.compose import Compose

pytestmark = [pytest.mark.compose, pytest.mark.timeout(600)]

CUTS = 1


@pytest.fixture
def flock(project: Started) -> Iterator[Compose]:
    with project("parvadapower", **QUICK) as started:
        yield started


def test_nothing_acknowledged_is_lost_when_all_containers_die_at_once(flock: Compose) -> None:
    flock.wait_for_voters(3)
    arena = Containers(flock)
    arena.wait_for_ray(3, 60.0 * arena.patience)
    ledger = run(arena, Setting("power", 0.0, seed=5, power_cuts=CUTS), prepare(arena, repeats=1))
    shown = table({"containers": ledger})
    assert ledger.violations == [], shown
    assert (ledger.lost, ledger.unknown, ledger.linearizable) == (0, 0, True), shown
    # The power did go, in the middle of a job, and there was a load.
    assert (ledger.kills_of_all, ledger.kills_of_all_in_mid_job, ledger.kills) == (CUTS, CUTS, 3 * CUTS), shown
    assert 1 <= ledger.jobs == ledger.jobs_succeeded, shown
    assert ledger.acknowledged > 30, shown
    assert ledger.datasets >= 1, shown
    assert ledger.linearizable_reads > 10, shown
