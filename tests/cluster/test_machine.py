"""Real nodes of one machine share its cores, and who is left has what the others had."""

import os
from pathlib import Path

import pytest

from tests.support.band import Band, band
from tests.support.flock import running
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

CORES = len(os.sched_getaffinity(0))


def expected(nodes: int) -> list[int]:
    """Largest first: the cores dealt out one by one."""
    return sorted((max(1, len(range(number, CORES, nodes))) for number in range(nodes)), reverse=True)


def test_three_nodes_offer_together_what_the_machine_has(tmp_path: Path) -> None:
    with running(tmp_path / "data", 3) as flock:
        for asked in flock.nodes:
            nodes = flock.view(asked)["nodes"]
            assert sorted((node["cpus"] for node in nodes), reverse=True) == expected(3)
            ids = {node["id"] for node in nodes}
            assert all(set(node["cpus_shared_with"]) == ids - {node["id"]} for node in nodes)
            text = flock.ask(asked, "GET", "/metrics").body
            here = next(node for node in nodes if node["name"] == asked.name)
            assert f"parvada_node_cpus {here['cpus']}".encode() in text

        def trained_with() -> float:
            return float(flock.view(flock.nodes[0])["ray"]["cpus"])

        head = next(node for node in flock.view(flock.nodes[0])["nodes"] if node["ray_head"])
        wait_for("the trainer to use its node's share", lambda: trained_with() == head["cpus"], 60)


def test_who_is_left_has_the_cores_of_those_that_went(tmp_path: Path) -> None:
    with band(tmp_path, 3, PARVADA_CPUS="") as nodes:
        nodes.grow(1)
        nodes.settle(1, 1)
        assert shares(nodes) == [CORES]
        wait_for("the trainer to use all", lambda: offered(nodes) == CORES, 60)
        nodes.grow(3)
        nodes.settle(3, 3)
        assert shares(nodes) == expected(3)
        wait_for("the trainer to keep to its share", lambda: offered(nodes) in (max(expected(3)), min(expected(3))), 60)
        nodes.shrink(nodes.living[1:])
        wait_for("the share of who is left", lambda: shares(nodes) == expected(1), 60)
        wait_for("the trainer to use all again", lambda: offered(nodes) == CORES, 60)


def shares(nodes: Band) -> list[int]:
    """Of those that take work."""
    found = (node["cpus"] for node in nodes.view(nodes.living[0])["nodes"])
    return sorted((cpus for cpus in found if cpus), reverse=True)


def offered(nodes: Band) -> float:
    return float(nodes.view(nodes.living[0])["ray"]["cpus"])
