"""The command line as a tree: where the connection's options may stand, and the other names of commands."""

from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from parvada.cli import group
from parvada.cli.groups import SYNONYMS
from tests.unit.parvada import canned
from tests.unit.parvada.conftest import Run
from tests.unit.parvada.scripted import Answer, ScriptedNode, free_port, from_table, problem

MORE = {"predict": ["--row", "{}"], "token join": ["--data", "flock"]}
LOCAL = {"up", "init", "health", "node", "cluster recover"}
"""They call no node."""
SILENT = {"top", "token show"}
"""What they do in a test calls none either."""


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from leaves(found, (*path, name))
        if not command.invoke_without_command:
            return
    yield " ".join(path), command


TREE = dict(leaves(group))
CONNECTED = sorted(set(TREE) - LOCAL)


def arguments(path: str) -> list[str]:
    """What a command needs at least."""
    needed = ["1" for parameter in TREE[path].params if isinstance(parameter, click.Argument) and parameter.required]
    agreed = ["--yes"] if any(parameter.name == "yes" for parameter in TREE[path].params) else []
    return [*needed, *agreed, *MORE.get(path, [])]


@pytest.fixture
def refusing() -> Iterator[ScriptedNode]:
    with ScriptedNode(lambda _: problem(403, "forbidden")) as running:
        yield running


def test_the_tree_has_all_commands() -> None:
    assert {"data push", "jobs ls", "node drain", "cluster rotate-secret", "token join", "status"} < set(TREE)
    assert set(TREE) >= LOCAL | SILENT


@pytest.mark.parametrize("path", CONNECTED)
def test_every_command_takes_the_connection_at_every_level(
    run: Run, refusing: ScriptedNode, tmp_path: Path, path: str
) -> None:
    (tmp_path / "flock").mkdir()
    (tmp_path / "flock" / "secret").write_text("ab" * 32)
    (tmp_path / "1").write_text("a,b\n1,2\n")
    (tmp_path / "token").write_text("pvd_given")
    words, nobody = path.split(), f"http://127.0.0.1:{free_port()}"
    given = ["--url", refusing.url, "--token-file", "token"]
    for place in range(len(words) + 1):
        called = len(refusing.seen)
        before = ["--url", nobody, "--data", "flock"] if place else []
        code, _, said = run(*before, *words[:place], *given, *words[place:], *arguments(path))
        assert code != 2, said
        assert path in SILENT or refusing.seen[called:], f"{path}: nobody was called at level {place}: {said}"
    assert all(seen.headers.get("authorization") in (None, "Bearer pvd_given") for seen in refusing.seen)


def test_the_last_one_given_wins(run: Run, refusing: ScriptedNode) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    assert run("--url", refusing.url, "data", "--url", refusing.url, "ls", "--url", nobody)[0] == 3
    assert run("--url", refusing.url, "data", "--url", nobody, "ls")[0] == 3
    assert refusing.seen == []
    assert run("--url", nobody, "--url", refusing.url, "data", "ls")[0] == 1, "repeated in one place: to fail over"


def test_what_calls_no_node_takes_the_data_folder_or_says_that_it_has_no_use_for_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARVADA_DATA", str(tmp_path / "environment"))
    assert run("--data", str(tmp_path / "flag"), "init")[0] == 0
    assert (tmp_path / "flag" / "secret").exists()
    for path in sorted(LOCAL):
        code, _, said = run("--url", "http://127.0.0.1:9", *path.split())
        assert (code, f"--url has no meaning for {path.split()[-1]!r}" in said) == (2, True), said
    assert "--data has no meaning for 'health'" in run("--data", str(tmp_path), "health")[2]


@pytest.mark.parametrize("path", sorted(path for path in TREE if path.split()[-1] in sum(SYNONYMS, ())))
def test_every_synonym_of_a_command_is_that_command(run: Run, path: str) -> None:
    *above, name = path.split()
    (alike,) = (names for names in SYNONYMS if name in names)
    shown = [run(*above, other, "--help")[:2] for other in alike]
    assert shown == [(0, shown[0][1])] * len(alike)
    assert shown[0][1].startswith(f"Usage: parvada {path} ")
    listed = [line.split()[0] for line in run(*above, "--help")[1].partition("Commands:")[2].splitlines() if line]
    assert [other for other in alike if other in listed] == [name], "the help shows it once"


def test_a_synonym_does_what_the_command_does(run: Run) -> None:
    table = {"GET /v1/jobs": {"jobs": [canned.job("01kabc")]}, "DELETE /v1/datasets/iris": Answer(200, {})}
    with ScriptedNode(from_table(table)) as node:
        assert run("jobs", "list", "--url", node.url) == run("--url", node.url, "jobs", "ls")
        assert run("--url", node.url, "data", "delete", "iris", "--yes")[0] == 0
        assert len(node.calls("DELETE", "/v1/datasets/iris")) == 1
        assert "Did you mean 'ls'?" in run("jobs", "lss")[2]
