"""Voters die and are replaced; leaders die, or lose their majority, while a write waits for them."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.band import Band, BandNode, band
from tests.support.wait import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]


def test_dead_voters_are_replaced_while_there_is_somebody_to_replace_them(tmp_path: Path) -> None:
    """7 nodes, of which 5 vote, die down to 2, and each survives as many deaths as its voters allow."""
    with band(tmp_path, 7, PARVADA_AWAY_AFTER_SECONDS="2") as cluster:
        cluster.grow(7)
        cluster.settle(7, 5)
        # Two at once, the leader among them: both learners take over, and it is five living voters again.
        leader = cluster.by_id(cluster.wait_for_leader())
        victims = [leader, next(node for node in voters_of(cluster) if node is not leader)]
        for victim in victims:
            victim.kill()
        wait_for("five living voters", lambda: living_voters(cluster) == (5, 0), 60)
        # A third: four of five still vote. Of four nodes three vote, and one is a learner.
        voters_of(cluster)[0].kill()
        write(cluster, "after-three")
        wait_for("three living voters", lambda: living_voters(cluster) == (3, 0), 60)
        # With three voters and one learner likewise.
        voters_of(cluster)[0].kill()
        write(cluster, "after-four")
        wait_for("the learner to vote", lambda: living_voters(cluster) == (3, 0), 60)
        # No learner is left: of three the dead one stays, so that it need only come back.
        dead = voters_of(cluster)[0]
        dead_id = cluster.id_of(dead)
        dead.kill()
        write(cluster, "after-five")
        wait_for("the dead one to be away", lambda: dead_id in away(cluster), 60)
        assert living_voters(cluster) == (2, 1)
        dead.start()
        cluster.settle(3, 3)
        names = {token["name"] for token in cluster.ask(dead, "GET", "/v1/tokens").body["tokens"]}
        assert names == {"after-three", "after-four", "after-five"}


def voters_of(cluster: Band) -> list[BandNode]:
    """The living ones, as a living node names them."""
    return living_among(cluster, cluster.view(cluster.living[0]))


def living_among(cluster: Band, view: dict[str, Any]) -> list[BandNode]:
    names = {each["name"] for each in view["nodes"] if each["id"] in view["voters"]}
    return [node for node in cluster.living if node.name in names]


def living_voters(cluster: Band) -> tuple[int, int]:
    """(living, dead) voters, once all living nodes agree and have a quorum."""
    views = [cluster.view(node) for node in cluster.living]
    if len({tuple(view["voters"]) for view in views}) > 1 or not all(view["quorum"] for view in views):
        return (0, 0)
    living = len(living_among(cluster, views[0]))
    return living, len(views[0]["voters"]) - living


def away(cluster: Band) -> set[str]:
    entries = cluster.ask(cluster.living[0], "GET", "/v1/audit?limit=1000").body["entries"]
    return {entry["object"] for entry in entries if (entry["call"], entry["actor"]) == ("SetMemberStatus", "leader")}


def write(cluster: Band, name: str, node: BandNode | None = None) -> None:
    body = {"name": name, "role": "viewer"}

    def done() -> bool:
        asked = node or cluster.living[0]
        headers = {"Idempotency-Key": name}
        return cluster.ask(asked, "POST", "/v1/tokens", body, headers=headers, timeout=5.0).status == 201

    wait_for(f"the write of {name}", done, 60)


def test_a_write_that_waits_through_a_follower_outlives_the_leader(tmp_path: Path) -> None:
    """The follower knows at once that the leader is gone: that is no reason to refuse what the next one can commit."""
    with band(tmp_path, 3) as cluster:
        cluster.grow(3)
        cluster.settle(3, 3)
        for number in range(3):
            leader = cluster.by_id(cluster.wait_for_leader())
            follower = next(node for node in cluster.nodes if node is not leader)
            leader.kill()
            body = {"name": f"during-{number}", "role": "viewer"}
            answer = cluster.ask(follower, "POST", "/v1/tokens", body, timeout=10.0)
            assert answer.status == 201, answer.body
            leader.start()
            cluster.settle(3, 3)


def test_a_leader_cut_off_says_so_and_leads_again(tmp_path: Path) -> None:
    with band(tmp_path, 4) as cluster:
        cluster.grow(4)
        cluster.settle(4, 3)
        leader = cluster.by_id(cluster.wait_for_leader())
        others = [node for node in voters_of(cluster) if node is not leader]
        learner = next(node for node in cluster.nodes if node not in (leader, *others))

        def transfer(to: str) -> tuple[int, str]:
            answer = cluster.ask(learner, "POST", "/v1/cluster/transfer", {"to": to}, timeout=20.0)
            return answer.status, answer.body.get("code", "")

        assert transfer("node-9") == (404, "unknown_node")
        assert transfer(learner.name) == (409, "conflict")
        for node in others:
            node.pause()
        try:
            refused = cluster.ask(leader, "POST", "/v1/tokens", {"name": "late", "role": "viewer"}, timeout=60.0)
            assert (refused.status, refused.body["code"]) == (503, "no_quorum")
            # Not the words of a command that has waited until its own deadline.
            assert "no majority of the voters has been in reach" in refused.body["error"]
            assert int(refused.headers["retry-after"]) >= 1
            view = cluster.view(leader)
            assert (view["quorum"], view["leader"]) == (False, None)
            assert [alarm["code"] for alarm in view["alarms"]] == ["no_quorum"]
        finally:
            for node in others:
                node.resume()
        write(cluster, "again", leader)

        # Where it is told to, leadership goes; where nobody can take it, it stays.
        leader = cluster.by_id(cluster.wait_for_leader())
        heir, dead = [node for node in voters_of(cluster) if node is not leader]
        dead.kill()
        wait_for("the death to be noticed", lambda: transfer(dead.name) == (409, "node_unreachable"), 60)
        assert transfer(heir.name) == (200, "")
        wait_for("the heir to lead", lambda: cluster.by_id(cluster.wait_for_leader()) is heir, 60)
