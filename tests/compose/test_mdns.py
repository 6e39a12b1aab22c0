"""Containers that find one another by mDNS alone: no seeds, no DNS name."""

from collections.abc import Iterator

import pytest

from tests.support.compose import Compose

pytestmark = [pytest.mark.compose, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def unseeded(docker_engine: None) -> Iterator[Compose]:
    project = Compose("parvadamdns", {"PARVADA_SEEDS": "", "PARVADA_RAY": "off"})
    project.down(volumes=True)
    project.compose("build", timeout=900)
    try:
        yield project
    finally:
        project.down(volumes=True)


def test_a_lone_node_and_then_two_more_form_one_cluster(unseeded: Compose) -> None:
    unseeded.up(1)
    unseeded.wait_for_voters(1)
    unseeded.up(3)
    unseeded.wait_for_voters(3)
    views = [unseeded.view(node) for node in unseeded.nodes]
    assert len({view["cluster_id"] for view in views}) == 1
    assert sorted(node["name"] for node in views[0]["nodes"]) == ["node-1", "node-2", "node-3"]
