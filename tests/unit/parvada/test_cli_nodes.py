"""`parvada nodes` and `parvada node …`: what is called, what a person and a script are told, exit codes."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from parvada.cli.nodes import LOOK_SECONDS
from tests.unit.parvada import canned
from tests.unit.parvada.conftest import Run, Waited
from tests.unit.parvada.scripted import Answer, ScriptedNode, Seen, from_table, problem

THIRD = canned.NODE_IDS[2]


def draining(left: int, **changes: Any) -> dict[str, Any]:
    """The picture with a third node that drains."""
    leads = bool(changes.get("leader"))
    drain = {"blobs": left, "votes": True, "done": not left and not leads}
    third = canned.node(3, state="draining", drain=drain, **changes)
    return canned.cluster(canned.node(1, leader=not leads), canned.node(2), third)


def script(*pictures: dict[str, Any], **more: Any) -> Any:
    """One picture a look, the last again and again; every change is accepted."""
    looks: Iterator[dict[str, Any]] = itertools.chain(pictures, itertools.repeat(pictures[-1]))
    return from_table(
        {
            "GET /v1/cluster": lambda _: next(looks),
            f"POST /v1/nodes/{THIRD}/drain": {},
            f"POST /v1/nodes/{THIRD}/undrain": {},
            f"DELETE /v1/nodes/{THIRD}": {"id": THIRD, "removed": True},
            "POST /v1/cluster/transfer": {"leader": THIRD},
            **more,
        }
    )


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    with ScriptedNode(script(canned.cluster())) as running:
        yield running


def changes(node: ScriptedNode) -> list[tuple[str, str]]:
    return [(seen.method, seen.path) for seen in node.seen if seen.method != "GET"]


def test_the_list_says_what_is_left_to_move(run: Run, node: ScriptedNode) -> None:
    node.script = script(draining(7))
    code, shown, _ = run("nodes", "ls", "--url", node.url)
    assert code == 0
    assert "(7 to move)" in shown
    node.script = script(draining(0))
    assert "(drained)" in run("nodes", "ls", "--url", node.url)[1]


def test_the_list_says_how_many_cores_nodes_have_and_why(run: Run, node: ScriptedNode) -> None:
    nodes = (
        canned.node(1, cpus=2, cpus_shared_with=[THIRD]),
        canned.node(2, cpus=8),
        canned.node(3, cpus=1, cpus_shared_with=[canned.NODE_IDS[0]]),
    )
    node.script = script(canned.cluster(*nodes))
    header, *rows = run("nodes", "ls", "--url", node.url)[1].splitlines()
    at = header.index("CPUS")
    assert [row[at:].split("  ")[0] for row in rows] == ["2 (shared by 2)", "8", "1 (shared by 2)"]


@pytest.mark.parametrize("group", ["node", "nodes"])
def test_draining_returns_at_once_and_says_how_to_undo_it(run: Run, node: ScriptedNode, group: str) -> None:
    node.script = script(draining(7))
    code, shown, said = run(group, "drain", "node-3", "--url", node.url)
    assert (code, shown) == (0, "")
    assert "`parvada nodes undrain node-3` takes it back" in said
    assert changes(node) == [("POST", f"/v1/nodes/{THIRD}/drain")]


def test_draining_can_be_waited_for(run: Run, node: ScriptedNode, waited: Waited) -> None:
    node.script = script(canned.cluster(), draining(2, leader=True), draining(0))
    code, shown, said = run("nodes", "drain", "node-3", "--wait", "--json", "--url", node.url)
    assert code == 0
    assert json.loads(shown)["drain"] == {"blobs": 0, "votes": True, "done": True}
    assert "node-3 drains: 2 blobs to copy to other nodes, the leadership to hand over" in said
    assert waited.seconds == LOOK_SECONDS


@pytest.mark.parametrize("timeout", [0, 20])
def test_a_node_that_does_not_get_drained_is_3_and_may_be_waited_for_again(
    run: Run, node: ScriptedNode, waited: Waited, timeout: int
) -> None:
    node.script = script(canned.cluster(), draining(2))
    code, _, said = run("nodes", "leave", "node-3", "--yes", "--timeout", f"{timeout}", "--url", node.url)
    assert (code, waited.seconds) == (3, timeout)
    assert f"has not drained in {timeout} s: 2 blobs to copy" in said
    assert said.count("node-3 drains: 2 blobs") == 1, "once, however often it looks"
    assert "it goes on draining" in said
    assert changes(node) == [("POST", f"/v1/nodes/{THIRD}/drain")], "it must not leave with what only it has"


def test_a_node_that_was_taken_back_does_not_leave(run: Run, node: ScriptedNode) -> None:
    node.script = script(canned.cluster())
    code, _, said = run("nodes", "leave", "node-3", "--yes", "--url", node.url)
    assert code == 1
    assert "does not drain any more" in said
    assert ("DELETE", f"/v1/nodes/{THIRD}") not in changes(node)


def test_leaving_drains_waits_and_removes(run: Run, node: ScriptedNode) -> None:
    node.script = script(canned.cluster(), draining(2), draining(0))
    code, shown, said = run("nodes", "leave", "node-3", "--yes", "--url", node.url)
    assert (code, shown) == (0, "")
    assert "ends with exit code 4" in said
    assert "to come back as a new node" in said
    assert changes(node) == [("POST", f"/v1/nodes/{THIRD}/drain"), ("DELETE", f"/v1/nodes/{THIRD}")]


def test_without_a_name_it_is_the_node_that_answers(run: Run, node: ScriptedNode) -> None:
    def said_by_the_third(_: Seen) -> Answer:
        return Answer(200, draining(0), {"x-parvada-node": THIRD})

    node.script = script(canned.cluster(), **{"GET /v1/cluster": said_by_the_third})
    code, shown, _ = run("node", "leave", "--yes", "--json", "--url", node.url)
    assert (code, json.loads(shown)) == (0, {"id": THIRD, "name": "node-3", "removed": True})


def test_without_a_name_and_with_several_nodes_here_it_asks_which(run: Run, node: ScriptedNode) -> None:
    code, _, said = run("node", "drain", "--url", f"{node.url},http://127.0.0.1:1")
    assert code == 1
    assert "say which one is meant" in said
    assert "node-2 (bbbbbbbbbbbb)" in said
    assert changes(node) == []


def test_a_node_that_ends_before_it_answers_is_3(run: Run, node: ScriptedNode) -> None:
    def answer(_: Seen) -> Answer:
        return Answer(200, draining(0), {"x-parvada-node": THIRD})

    node.script = script(
        canned.cluster(), **{"GET /v1/cluster": answer, f"DELETE /v1/nodes/{THIRD}": Answer(drop=True)}
    )
    code, _, said = run("node", "leave", "--yes", "--url", node.url)
    assert code == 3
    assert "shows whether it is gone" in said


def test_only_copies_are_given_up_by_force_alone(run: Run, node: ScriptedNode) -> None:
    def refused(seen: Seen) -> Answer:
        forced = seen.query.get("force") == "true"
        return Answer(200, {}) if forced else problem(409, "only_copies", "no other node holds dataset iris 1")

    node.script = script(canned.cluster(), **{f"DELETE /v1/nodes/{THIRD}": refused})
    code, _, said = run("nodes", "remove", "node-3", "--yes", "--url", node.url)
    assert code == 1
    assert "no other node holds dataset iris 1" in said
    assert run("nodes", "remove", "node-3", "--yes", "--force", "--url", node.url)[0] == 0


def test_leadership_is_handed_over_by_name(run: Run, node: ScriptedNode) -> None:
    node.script = script(canned.cluster(), draining(0, leader=True) | {"leader": THIRD})
    code, _, said = run("nodes", "transfer", "node-3", "--url", node.url)
    assert code == 0
    assert "the leader is node-3" in said
    assert json.loads(node.calls("POST", "/v1/cluster/transfer")[0].body) == {"to": THIRD}


@pytest.mark.parametrize("command", ["drain", "undrain", "remove", "leave", "transfer"])
def test_an_unknown_node_is_1_and_the_known_ones_are_named(run: Run, node: ScriptedNode, command: str) -> None:
    code, _, said = run("nodes", command, "node-9", "--url", node.url)
    assert code == 1
    assert "'node-9' names no nodes" in said
    assert "node-1 (aaaaaaaaaaaa)" in said
    assert changes(node) == []
