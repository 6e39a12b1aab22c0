"""Containers that find one another by mDNS alone: no seeds, no DNS name."""

import pytest

from tests.compose.conftest import QUICK, Started

pytestmark = [pytest.mark.compose, pytest.mark.timeout(180)]


def test_a_lone_node_and_then_two_more_form_one_cluster(project: Started) -> None:
    with project("parvadamdns", 1, PARVADA_SEEDS="", PARVADA_RAY="off", **QUICK) as unseeded:
        unseeded.wait_for_voters(1)
        unseeded.up(3)
        unseeded.wait_for_voters(3)
        views = [unseeded.view(node) for node in unseeded.nodes]
        assert len({view["cluster_id"] for view in views}) == 1
        assert sorted(node["name"] for node in views[0]["nodes"]) == ["node-1", "node-2", "node-3"]
