"""A rotation of the cluster secret that a node which is away holds up is abandoned, or goes on without the node."""

from pathlib import Path

import pytest

from node.identity.secret import load_secret
from tests.support.rotating import rotating
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_a_rotation_goes_on_without_a_node_that_is_away_or_is_given_up(tmp_path: Path) -> None:
    with rotating(tmp_path) as cluster:
        before = load_secret(cluster.data / "secret")
        away, *others = cluster.nodes[:3]
        away.kill()

        cluster.begin(others[0])
        cluster.wait_until_held("prepare", away)
        done = cluster.ask(others[1], "POST", "/v1/cluster/secret/abandon")
        assert (done.status, done.body["phase"], done.body["generation"]) == (200, "settled", 1)
        wait_for("it to be forgotten", lambda: not list(cluster.data.glob("slots/*/secrets.json")), 40)
        assert load_secret(cluster.data / "secret") == before

        cluster.begin(others[1])
        cluster.wait_until_held("prepare", away)
        assert cluster.ask(others[0], "POST", "/v1/cluster/secret/excuse", {"node": away.name}).status == 200
        wait_for("the end", lambda: cluster.settled(2), 90)
        assert {node["name"] for node in cluster.rotation()["nodes"] if node["excused"]} == {away.name}
        assert load_secret(cluster.data / "secret") != before

        # It starts with a copy of the old secret and is refused; with the folder's new one it is back.
        cluster.give_secret(away, before)
        away.start()
        wait_for("the reason", lambda: "has another cluster secret than this one" in away.log, 60)
        away.kill()
        del cluster.settings[away.number]
        away.start()
        cluster.settle(3, 3, 90)
