"""Real agents that start at once, apart, or somewhere else than before: always one cluster, and always the same one."""

from pathlib import Path

import pytest

from node.identity.secret import admin_token, load_secret, make_secret
from tests.support.data import iris_csv
from tests.support.detour import detours
from tests.support.hosts import LOOPBACK, Host, clusters, hosts, members, ports_of, rule, wait_for_members
from tests.support.http import request
from tests.support.ports import lent
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

NODES = 7
PATIENTLY = 120.0
"""Seconds for nodes to form: many times what they need, for machines that are busy with something else."""


@pytest.mark.parametrize("number", [1, 2, 3])
def test_nodes_that_start_at_once_end_in_one_cluster(tmp_path: Path, number: int) -> None:
    with hosts(tmp_path, NODES, shared=number == 1, environment=rule(number, NODES)) as started:
        for host in started:
            host.start()
        wait_for_members(started, NODES, PATIENTLY)
        assert len(clusters(started)) == 1
        assert sum("formation=joined" not in host.log for host in started) == 1, "one forms, the others join"


def test_a_newcomer_gets_in_through_any_member(tmp_path: Path) -> None:
    """The third knows only the second, which does not lead: the leader must hear of it all the same."""
    with hosts(tmp_path, 3, [[], [0], [1]], environment={"PARVADA_QUIET_SECONDS": "100"}) as (first, second, third):
        first.environment["PARVADA_EXPECT"] = "1"
        for count, host in enumerate((first, second, third), 1):
            host.start()
            wait_for_members([host], count, PATIENTLY)
        assert len(clusters([first, second, third])) == 1


def test_two_halves_of_which_neither_can_form_and_a_bridge_form_one_cluster(tmp_path: Path) -> None:
    """Nodes tell one another whom they know: 0 and 1 never had the address of 2 and 3."""
    with hosts(tmp_path, 5, [[1], [0], [3], [2], [0, 2]], environment=rule(2, 5)) as started:
        for host in started[:4]:
            host.start()
        for host in started[:4]:
            wait_for("it to wait for more", lambda host=host: "2 of 5 expected nodes" in host.log, PATIENTLY)  # type: ignore[misc]
        started[4].start()
        wait_for_members(started, 5, PATIENTLY)
        assert len(clusters(started)) == 1


def test_halves_cut_off_from_each_other_while_they_form_are_one_cluster_once_healed(tmp_path: Path) -> None:
    """PARVADA_EXPECT=5: the half of three forms, that of two waits, and joins as soon as it sees the others."""
    with hosts(tmp_path, 5, environment=rule(2, 5)) as started:
        large, small = started[:3], started[3:]
        with detours([host.ports.peer for host in started]) as ways:
            for half, others in ((large, small), (small, large)):
                beyond = [f"{LOOPBACK}:{ways[started.index(host)].port}" for host in others]
                for host in half:
                    inside = [f"{LOOPBACK}:{other.ports.peer}" for other in half if other is not host]
                    host.environment["PARVADA_SEEDS"] = ",".join(inside + beyond)
            for host in started:
                host.start()
            wait_for_members(large, 3, PATIENTLY)
            for host in small:
                wait_for("it to wait", lambda host=host: "2 of 5 expected nodes" in host.log, PATIENTLY)  # type: ignore[misc]
            assert clusters(small) == set()
            for way in ways:
                way.heal()
            wait_for_members(started, 5, PATIENTLY)
            assert len(clusters(started)) == 1


def test_a_cluster_that_is_started_again_at_other_addresses_is_the_same(tmp_path: Path) -> None:
    with hosts(tmp_path, 3, environment=rule(2, 3)) as started, lent(12) as elsewhere:
        token = admin_token(load_secret(tmp_path / "secret"))
        for host in started:
            host.start()
        wait_for_members(started, 3, PATIENTLY)
        pushed = request("PUT", f"{started[0].url}/v1/datasets/iris?target=species", iris_csv(), token=token)
        assert pushed.status == 201, pushed
        before = _identity(started)
        for host in started:
            host.kill()
        for number, host in enumerate(started):
            host.move(ports_of(elsewhere, number))
        for host in started:
            host.seed([other for other in started if other is not host])
            host.start()
        wait_for(
            "all to be back, where they are now", lambda: _identity(started) == before and _moved(started), PATIENTLY
        )
        for host in started:
            wait_for("the data", lambda host=host: _has_iris(host, token), PATIENTLY)  # type: ignore[misc]


def _identity(found: list[Host]) -> set[tuple[str, tuple[tuple[str, str], ...]]]:
    """Cluster, and the ids and names of its members, as each node sees them: one entry if they agree."""
    views = [host.view() for host in found]
    return {
        (view["cluster_id"], tuple(sorted((node["id"], node["name"]) for node in view["nodes"]))) if view else ("", ())
        for view in views
    }


def _moved(found: list[Host]) -> bool:
    """Whether each node has told the others its new address and all are connected."""
    views = [view for host in found if (view := host.view())]
    return len(views) == len(found) and all(
        view["quorum"] and all(node["state"] == "alive" for node in view["nodes"]) for view in views
    )


def _has_iris(host: Host, token: str) -> bool:
    return request("GET", f"{host.url}/v1/datasets/iris", token=token, timeout=5.0).status == 200


def test_two_secrets_on_one_network_stay_two_clusters(tmp_path: Path) -> None:
    """By mDNS, on one segment: each finds its own, leaves the others alone, and has nothing to complain of."""
    flocks = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        make_secret(tmp_path / name / "secret")
        flocks.append(tmp_path / name)
    nobody: list[list[int]] = [[], [], []]
    by_mdns = {**rule(3, 3), "PARVADA_MDNS": "on"}
    with (
        hosts(flocks[0], 3, nobody, environment=by_mdns) as ones,
        hosts(flocks[1], 3, nobody, environment=by_mdns) as others,
    ):
        for host in (*ones, *others):
            host.start()
        for flock in (ones, others):
            wait_for_members(flock, 3, PATIENTLY)
            assert len(clusters(flock)) == 1
        assert clusters(ones).isdisjoint(clusters(others))
        for flock, foreign in ((ones, others), (others, ones)):
            ids = [node["id"] for node in (foreign[0].view() or {"nodes": []})["nodes"]]
            assert len(ids) == 3
            for host in flock:
                assert members(host) == 3
                assert host.alarms() == []
                assert not any(node in host.log for node in ids), "it has met a node of the other cluster"
                warnings = [line for line in host.log.splitlines() if " warning " in line]
                assert len(warnings) <= 3, warnings
