"""The power fails in each phase of a rotation of the cluster secret: it goes on from where it was."""

from pathlib import Path

import pytest

from node.identity.secret import load_secret
from tests.support.rotating import rotating
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


PHASES = ("prepare", "present", "retire")


def test_a_restart_of_everything_in_any_phase(tmp_path: Path) -> None:
    """A node that stands still holds the phase; to pass it on to the next one, another takes its turn."""
    with rotating(tmp_path) as cluster:
        seen = {load_secret(cluster.data / "secret")}
        for generation, phase in enumerate(PHASES, 2):
            leader = cluster.by_id(cluster.wait_for_leader())
            holder, other = [node for node in cluster.nodes[:3] if node is not leader]
            cluster.pause(holder)
            cluster.begin(leader)
            cluster.wait_until_held("prepare", holder)
            for passed in PHASES[1 : PHASES.index(phase) + 1]:
                cluster.pause(other)
                cluster.resume(holder)
                holder, other = other, holder
                cluster.wait_until_held(passed, holder)
            assert cluster.phase() == phase
            for node in cluster.living:
                node.kill()
            cluster.paused.clear()
            cluster.grow(3)
            cluster.settle(3, 3)
            wait_for(f"generation {generation}", lambda number=generation: cluster.settled(number), 90)  # type: ignore[misc]
            seen.add(load_secret(cluster.data / "secret"))
            assert len(seen) == generation
        wait_for("all to be put away", lambda: not list(cluster.data.glob("slots/*/secrets.json")))
