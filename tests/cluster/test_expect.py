"""Several hosts with nothing shared but the secret: PARVADA_EXPECT decides who forms."""

from pathlib import Path

import pytest

from tests.support.hosts import clusters, hosts, members, rule, wait_for_members
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]


def test_two_of_three_form_and_the_third_joins_later(tmp_path: Path) -> None:
    with hosts(tmp_path, 3, environment=rule(2, 3)) as (first, second, third):
        first.start()
        wait_for("the first to wait for a majority", lambda: "1 of 3 expected nodes in sight" in first.log, 60)
        second.start()
        wait_for_members([first, second], 2)
        third.start()
        wait_for_members([third], 3)
        views = [host.view() for host in (first, second, third)]
        assert len({view["cluster_id"] for view in views if view}) == 1
        assert sorted(view["formation"] for view in views if view) == ["expected", "joined", "joined"]


def test_three_at_once_form_one_cluster(tmp_path: Path) -> None:
    with hosts(tmp_path, 3, environment=rule(2, 3)) as started:
        for host in started:
            host.start()
        wait_for_members(started, 3)
        assert len(clusters(started)) == 1


def test_two_clusters_under_one_secret_raise_the_alarm_on_both_sides(tmp_path: Path) -> None:
    """Formed apart, since neither knew of the other; then one learns of the other's address."""
    with hosts(tmp_path, 2, [[1], []], environment=rule(2, 1)) as (first, second):
        for host in (first, second):
            host.environment["PARVADA_SEEDS"], seeds = "", host.environment["PARVADA_SEEDS"]
            host.start()
            wait_for("a cluster of one", lambda host=host: members(host) == 1, 60)  # type: ignore[misc]
            if host is first:
                host.stop()
                host.environment["PARVADA_SEEDS"] = seeds
        first.start()
        for host in (first, second):
            wait_for("the alarm", lambda host=host: "split" in host.alarms(), 60)  # type: ignore[misc]
        assert members(first) == members(second) == 1
