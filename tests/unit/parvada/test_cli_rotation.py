"""`cluster rotate-secret`: what it asks, what it says on the way, and how it ends."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.identity.ring import Ring, RingStore
from node.identity.secret import admin_token, encode_join_token, load_secret
from tests.unit.parvada.canned import NODE_IDS
from tests.unit.parvada.conftest import Run, Waited
from tests.unit.parvada.scripted import Answer, Script, ScriptedNode, Seen, from_table

PATH = "/v1/cluster/secret"


def rotation(phase: str, generation: int = 1, done: str = "", excused: str = "") -> dict[str, Any]:
    nodes = [
        {"id": NODE_IDS[number - 1], "name": f"node-{number}", "state": "dead" if number == 3 else "alive",
         "done": str(number) in done, "excused": str(number) in excused}
        for number in (1, 2, 3)
    ]  # fmt: skip
    return {"generation": generation, "phase": phase, "since": "2026-11-22T12:00:00Z", "nodes": nodes}


def script(*seen: dict[str, Any]) -> Script:
    """Each look finds the next, the last for good."""
    left = list(seen)

    def look(_: Seen) -> dict[str, Any]:
        return left.pop(0) if len(left) > 1 else left[0]

    posts = {f"POST {PATH}/{call}": Answer(202, rotation("prepare")) for call in ("rotate", "excuse")}
    return from_table({f"GET {PATH}": look, f"POST {PATH}/abandon": rotation("settled", done="123"), **posts})


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    with ScriptedNode(script(rotation("settled"))) as scripted:
        yield scripted


def posts(node: ScriptedNode) -> list[tuple[str, bytes]]:
    return [(seen.path.removeprefix(PATH), seen.body) for seen in node.seen if seen.method == "POST"]


def test_it_tells_each_phase_and_whom_it_waits_for(run: Run, node: ScriptedNode) -> None:
    node.script = script(
        rotation("settled"),
        rotation("settled"),  # of a node that has not heard of it yet
        rotation("prepare", done="1"),
        rotation("present", done="12", excused="3"),
        rotation("settled", 2, done="12", excused="3"),
    )
    code, shown, said = run("cluster", "rotate-secret", "--yes", "--json", "--url", node.url)
    assert code == 0
    assert json.loads(shown)["generation"] == 2
    assert "prepare: every node gets the new secret and trusts both; waiting for node-2, node-3 (dead)" in said
    assert "present: every node shows certificates of the new secret; waiting for nobody" in said
    assert posts(node) == [("/rotate", b"")]


def test_people_are_told_what_to_do_then(run: Run, node: ScriptedNode) -> None:
    node.script = script(rotation("retire"), rotation("settled", 2, done="12", excused="3"))
    code, shown, said = run("cluster", "rotate-secret", "--url", node.url)
    assert (code, shown) == (0, "")
    assert "generation 2 of the cluster secret is in force" in said
    assert "node-3 did not get the new secret" in said
    assert posts(node) == [], "one that is under way is only waited for"


def test_it_asks_and_shows_who_gets_the_secret(run: Run, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    code, _, said = run("cluster", "rotate-secret", "--url", node.url)
    assert code == 130
    assert "remove those that you do not know first" in said
    assert f"node-3  {NODE_IDS[2][:12]}  dead" in said
    assert posts(node) == []


def test_a_node_can_be_left_out(run: Run, node: ScriptedNode) -> None:
    node.script = script(rotation("prepare", done="12"), rotation("prepare", done="12"), rotation("settled", 2, "12"))
    code, _, _ = run("cluster", "rotate-secret", "--without", "node-3", "--url", node.url)
    assert code == 0
    assert posts(node) == [("/excuse", b'{"node":"node-3"}')]


@pytest.mark.parametrize("timeout", [0, 20])
def test_one_that_does_not_end_is_3_and_says_how_to_go_on(
    run: Run, node: ScriptedNode, waited: Waited, timeout: int
) -> None:
    node.script = script(rotation("prepare", done="12"))
    code, _, said = run("cluster", "rotate-secret", "--timeout", f"{timeout}", "--url", node.url)
    assert (code, waited.seconds) == (3, timeout)
    assert f"not finished in {timeout} s: prepare: every node gets the new secret" in said
    assert "--without NODE" in said


def test_one_that_is_abandoned_meanwhile_is_a_failure(run: Run, node: ScriptedNode) -> None:
    node.script = script(rotation("prepare"), rotation("prepare"), rotation("settled"))
    code, _, said = run("cluster", "rotate-secret", "--url", node.url)
    assert code == 1
    assert "the rotation was abandoned: the old secret stays in force" in said


@pytest.mark.parametrize(("flag", "made"), [("--abandon", [("/abandon", b"")]), ("--status", [])])
def test_looking_and_abandoning(run: Run, node: ScriptedNode, flag: str, made: list[tuple[str, bytes]]) -> None:
    code, shown, _ = run("cluster", "rotate-secret", flag, "--url", node.url)
    assert (code, shown) == (0, "generation 1 is in force. no rotation is under way\n")
    assert posts(node) == made


# ---------------------------------------------------------------- the new secret, by hand
def test_a_join_token_puts_the_secret_in_the_place_of_an_old_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, secret = tmp_path / "data", bytes(range(32))
    assert run("init", "--data", str(data))[0] == 0
    token = encode_join_token("c0ffee", secret)
    (tmp_path / "token").write_text(f"  {token}\n")
    code, _, said = run("init", "--join", str(tmp_path / "token"), "--data", str(data))
    assert (code, load_secret(data / "secret")) == (0, secret)
    assert (data / "secret").stat().st_mode & 0o777 == 0o600
    assert "the secret of cluster c0ffee is at" in said
    monkeypatch.setattr("sys.stdin", io.StringIO(token[:-1] + "x"))
    code, _, said = run("init", "--join", "-", "--data", str(data))
    assert (code, load_secret(data / "secret")) == (1, secret)
    assert "incomplete or mistyped" in said


def test_the_token_follows_the_slots_while_the_operators_file_is_old(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new, data, given = bytes(32), bytes(range(32)), tmp_path / "data", tmp_path / "given"
    given.write_text(old.hex())
    given.chmod(0o600)
    slot = data / "slots" / "1"
    slot.mkdir(parents=True)
    monkeypatch.setenv("PARVADA_SECRET_FILE", str(given))
    for ring, expected in ((Ring(old), old), (Ring(old, new).presenting().retiring(), new)):
        RingStore(slot, given, owned=False).save(ring)
        assert run("token", "show", "--data", str(data)) == (0, admin_token(expected) + "\n", "")
