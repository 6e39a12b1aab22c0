"""A few seeds of the simulator, which is at home in `tests.simulation`: for the loop of a change."""

import pytest

from tests.simulation.runner import run_block


@pytest.mark.parametrize("block", range(3))
def test_nothing_acknowledged_is_lost(block: int) -> None:
    outcomes = run_block(10_000 + 6 * block, 6)
    assert [outcome for outcome in outcomes if outcome.problem] == []
    assert sum(outcome.acknowledged for outcome in outcomes) > 300
