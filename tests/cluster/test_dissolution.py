"""Two clusters that real agents have formed apart under one secret, and that come to see each other."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from node.identity.secret import admin_token, load_secret
from tests.support.data import iris_csv
from tests.support.hosts import Host, clusters, hosts, rule, wait_for_members
from tests.support.http import request
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

PATIENTLY = 120.0
SETTINGS = {**rule(3, 5), "PARVADA_QUIET_SECONDS": "1"}
"""Nobody meets anybody but those that it knows: no use in waiting for more."""
APART: list[list[int]] = [[1, 2], [0, 2], [0, 1], [4], [3]]
"""Whom each of five knows: three in one flock, two in the other."""


def form_apart(started: Sequence[Host]) -> None:
    for host in started:
        host.start()
    wait_for_members(started[:3], 3, PATIENTLY)
    wait_for_members(started[3:], 2, PATIENTLY)
    assert len(clusters(started)) == 2


def introduce(started: Sequence[Host]) -> None:
    """From here on one node knows one of the other flock."""
    started[2].kill()
    started[2].seed([started[0], started[1], started[3]])
    started[2].start()


def push(host: Host, folder: Path, name: str) -> None:
    token = admin_token(load_secret(folder / "secret"))
    pushed = request("PUT", f"{host.url}/v1/datasets/{name}?target=species", iris_csv(), token=token)
    assert pushed.status == 201, pushed


def has(host: Host, folder: Path, name: str) -> bool:
    token = admin_token(load_secret(folder / "secret"))
    try:
        return request("GET", f"{host.url}/v1/datasets/{name}", token=token, timeout=5.0).status == 200
    except OSError:
        return False


def test_of_two_that_hold_nothing_one_ends_and_its_nodes_join_the_other(tmp_path: Path) -> None:
    with hosts(tmp_path, 5, APART, environment=SETTINGS) as started:
        form_apart(started)
        stays = min(clusters(started))
        introduce(started)
        wait_for_members(started, 5, PATIENTLY)
        assert clusters(started) == {stays}
        for host in started:
            wait_for("the alarm to be over", lambda host=host: "split" not in host.alarms(), PATIENTLY)  # type: ignore[misc]
        push(started[4], tmp_path, "iris")
        for host in started:
            wait_for("the data", lambda host=host: has(host, tmp_path, "iris"), PATIENTLY)  # type: ignore[misc]


@pytest.mark.parametrize("keeper", [0, 4])
def test_the_one_that_holds_something_stays_whatever_its_id(tmp_path: Path, keeper: int) -> None:
    """Once it is the larger one, and once the smaller: the ids are as they come."""
    with hosts(tmp_path, 5, APART, environment=SETTINGS) as started:
        form_apart(started)
        stays = clusters([started[keeper]])
        push(started[keeper], tmp_path, "iris")
        introduce(started)
        wait_for_members(started, 5, PATIENTLY)
        assert clusters(started) == stays
        for host in started:
            wait_for("the data", lambda host=host: has(host, tmp_path, "iris"), PATIENTLY)  # type: ignore[misc]


def test_two_that_both_hold_something_stay_two_and_say_so(tmp_path: Path) -> None:
    with hosts(tmp_path, 5, APART, environment=SETTINGS) as started:
        form_apart(started)
        before = [clusters([host]) for host in started]
        push(started[0], tmp_path, "theirs")
        push(started[4], tmp_path, "ours")
        introduce(started)
        wait_for_members(started[:3], 3, PATIENTLY)
        for host in started[2:4]:  # the two that have met
            wait_for("the alarm", lambda host=host: "split" in host.alarms(), PATIENTLY)  # type: ignore[misc]
        wait_for("the voters to be back", lambda: has(started[2], tmp_path, "theirs"), PATIENTLY)
        assert [clusters([host]) for host in started] == before
        assert has(started[3], tmp_path, "ours")
        assert not has(started[3], tmp_path, "theirs")


def test_a_node_that_slept_through_the_end_of_its_cluster_follows_the_others(tmp_path: Path) -> None:
    with hosts(tmp_path, 5, APART, environment=SETTINGS) as started:
        form_apart(started)
        push(started[4], tmp_path, "iris")
        stays = clusters([started[4]])
        wait_for("three voters", lambda: _voters(started[0]) == 3, PATIENTLY)
        started[1].kill()
        introduce(started)
        wait_for_members([started[0], *started[2:]], 4, PATIENTLY)
        started[1].start()
        wait_for_members(started, 5, PATIENTLY)
        assert clusters(started) == stays
        assert "most of its voters are there" in started[1].log


def test_two_that_find_each_other_by_mdns_become_one(tmp_path: Path) -> None:
    """The node whose cluster ends announces itself anew, under the same name, from the same process."""
    with hosts(tmp_path, 2, [[], []], environment=SETTINGS) as started:
        for host in started:
            host.start()
        wait_for_members(started, 1, PATIENTLY)
        stays = min(clusters(started))
        for host in started:
            host.kill()
            host.environment["PARVADA_MDNS"] = "on"
            host.start()
        wait_for_members(started, 2, PATIENTLY)
        assert clusters(started) == {stays}


def _voters(host: Host) -> int:
    view = host.view()
    return len([node for node in view["nodes"] if node["role"] in ("voter", "leader")]) if view else 0
