"""Members come, go and are restarted while clients write: nothing is lost, and writes go on in every step.

For how long they stand still on a quiet machine is a benchmark's: `python -m benchmarks.membership`.
"""

from pathlib import Path

import pytest

from tests.support.band import band
from tests.support.scaling import restart_each, scale

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_no_step_of_scaling_loses_a_write_or_stops_them(tmp_path: Path) -> None:
    with band(tmp_path, 7) as cluster:
        run = scale(cluster)
    assert (run.lost, run.odd) == (0, [])


def test_nodes_restarted_one_after_another_never_stop_the_writes(tmp_path: Path) -> None:
    with band(tmp_path, 3) as cluster:
        run = restart_each(cluster)
    assert (run.lost, run.odd) == (0, [])
