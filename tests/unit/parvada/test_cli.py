"""The command line as its users and their scripts see it: output, exit codes, where it looks, and how quick it is."""

import io
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from parvada._protocol import REST_SECONDS
from parvada.cli.settings import PATIENCE_SECONDS, locate
from tests.unit.parvada import canned
from tests.unit.parvada.conftest import Run, Waited
from tests.unit.parvada.scripted import Answer, ScriptedNode, Seen, event_block, free_port, from_table, problem

ROW = {
    "rank": 1,
    "candidate": "0.1",
    "dataset": "iris",
    "estimator": "SVC",
    "params": {},
    "state": "ok",
    "metric": "accuracy",
    "cv_mean": 0.9733,
    "cv_std": 0.01,
    "holdout": {"accuracy": 0.96},
    "fit_seconds": 0.2,
    "predict_us_per_row": 3.2,
    "model": "iris",
    "version": 1,
}
FAILED_ROW = {
    **ROW,
    "rank": None,
    "estimator": "NuSVC",
    "state": "failed",
    "reason": "nu is infeasible",
    "cv_mean": None,
}


def table(**changes: Any) -> dict[str, Any]:
    jobs = [canned.job("01kabd", created_at="2026-11-22T12:30:00Z"), canned.job("01kabc"), canned.job("01xyz")]
    return {
        "GET /v1/cluster": canned.cluster(),
        "GET /v1/jobs": {"jobs": jobs},
        "POST /v1/jobs": Answer(202, canned.job("01kabc", 0.0, "queued")),
        "GET /v1/jobs/01kabc": canned.job("01kabc", 1.0, "succeeded"),
        "GET /v1/jobs/01kabd": canned.job("01kabd"),
        "GET /v1/jobs/01kabd/leaderboard": {"job": "01kabd", "rows": [ROW, FAILED_ROW]},
        "GET /v1/datasets": {"datasets": [canned.dataset()]},
        "PUT /v1/datasets/iris": Answer(201, canned.dataset()),
        "POST /v1/models/iris/predict": {**canned.PREDICTION, "predictions": ["setosa", "virginica"]},
        "GET /v1/events": None,
        "POST /v1/tokens": Answer(
            201, {"id": "t1", "name": "ci", "role": "operator", "created_at": "x", "token": "pvd_x"}
        ),
        **changes,
    }


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    with ScriptedNode(from_table(table())) as running:
        yield running


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from parvada.cli import main; main(['--help']);"
        "print(sorted({'aiohttp','textual','rich','pandas','numpy','ray','cryptography','asyncio'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert shown.stdout.splitlines()[-1] == "[]"
    assert "leaderboard" in shown.stdout
    # By turns, at their best: what is ours costs less than the library that it is made with.
    pairs = [(_seconds("-m", "parvada", "--help"), _seconds("-c", "import click")) for _ in range(5)]
    assert min(ours for ours, _ in pairs) < 2 * min(theirs for _, theirs in pairs), pairs


def test_the_health_check_is_tiny(node: ScriptedNode) -> None:
    def check(ready: bool) -> subprocess.CompletedProcess[str]:
        node.script = from_table({"GET /readyz": {"status": "ok"} if ready else problem(503, "not_ready", "joining")})
        return subprocess.run(
            [sys.executable, "-S", "-m", "parvada.health"],
            env={**os.environ, "PARVADA_PORT": str(node.port)},
            cwd=Path(__file__).parents[3],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )

    assert check(ready=True).returncode == 0
    failed = check(ready=False)
    assert failed.returncode == 1
    assert "joining" in failed.stderr


def _seconds(*arguments: str) -> float:
    """Of the processor, for a Python process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True, timeout=30)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@pytest.mark.parametrize(
    ("cluster", "code", "word"),
    [
        (canned.cluster(), 0, "healthy"),
        (canned.cluster(canned.node(1), canned.node(2), canned.node(3, state="dead")), 4, "degraded"),
        (canned.cluster(alarms=[{"code": "disk", "since": "2026-11-22T12:00:00Z", "message": "full"}]), 4, "full"),
        (canned.cluster(quorum=False, leader=None), 5, "no quorum"),
    ],
)
def test_status_says_how_the_cluster_is_and_exits_so(
    run: Run, node: ScriptedNode, cluster: Any, code: int, word: str
) -> None:
    node.script = from_table({"GET /v1/cluster": cluster})
    exit_code, shown, _ = run("status", "--url", node.url)
    assert exit_code == code
    assert word in shown
    assert all(name in shown for name in ("node-1", "node-2", "node-3"))
    exit_code, shown, said = run("status", "--json", "--url", node.url)
    assert exit_code == code
    assert json.loads(shown)["quorum"] is cluster["quorum"]
    assert said == ""


def test_status_of_nobody_is_3_and_says_what_to_do(run: Run, waited: Waited) -> None:
    code, shown, said = run("status", "--url", f"http://127.0.0.1:{free_port()}")
    assert (code, shown) == (3, "")
    assert "no node answered" in said
    assert "parvada up" in said
    assert waited.seconds == PATIENCE_SECONDS - REST_SECONDS, "no other try would have begun in time"


def test_a_write_without_quorum_is_5(run: Run, node: ScriptedNode, waited: Waited) -> None:
    node.script = lambda _: problem(503, "no_quorum", "1 of 3 voters is alive")
    code, shown, said = run("train", "iris", "--url", node.url)
    assert (code, shown) == (5, "")
    assert "1 of 3 voters is alive" in said
    assert len(node.calls("POST", "/v1/jobs")) == PATIENCE_SECONDS // REST_SECONDS
    assert waited.seconds < PATIENCE_SECONDS


def test_training_prints_the_id_and_the_result_and_follows_on_stderr(run: Run, node: ScriptedNode) -> None:
    code, shown, said = run("train", "iris@2", "--models", "SVC, LinearSVC", "--cv", "3", "--seed", "7", "--drop", "id",
                            "--publish", "never", "--url", node.url)  # fmt: skip
    assert code == 0, said
    assert shown.splitlines()[0] == "01kabc"
    assert re.search(r"iris v1 +done +RandomForestClassifier +accuracy +0.9733 +iris v1", shown)
    assert "succeeded 100%" in said
    spec = msgspec.json.decode(node.calls("POST", "/v1/jobs")[0].body)
    assert spec["datasets"] == [{"name": "iris", "version": 2, "drop": ["id"]}]
    assert (spec["models"], spec["cv"]["folds"], spec["seed"]) == (["SVC", "LinearSVC"], 3, 7)
    assert spec["publish"]["when"] == "never"


def test_training_without_following_ends_at_once(run: Run, node: ScriptedNode) -> None:
    assert run("train", "iris", "--no-follow", "--url", node.url)[:2] == (0, "01kabc\n")
    assert node.calls("GET", "/v1/jobs/01kabc") == []


def test_a_failed_job_is_1(run: Run, node: ScriptedNode) -> None:
    node.script = from_table(table(**{"GET /v1/jobs/01kabc": canned.job("01kabc", 1.0, "failed", error="no fit")}))
    assert run("train", "iris", "--url", node.url)[0] == 1


def test_jobs_are_named_by_the_beginning_of_their_id(run: Run, node: ScriptedNode) -> None:
    assert "01kabc" in run("jobs", "show", "01kabc", "--url", node.url)[1]
    code, _, said = run("jobs", "show", "01k", "--url", node.url)
    assert code == 1
    assert "01kabd, 01kabc" in said, "the newest first"
    code, shown, _ = run("leaderboard", "latest", "--url", node.url)
    assert code == 0
    assert re.search(r"1 +iris +SVC +0.9733 +0.0100 +0.9600", shown)
    assert "nu is infeasible" in shown, "failed candidates are listed with their reason"


def test_a_job_is_deleted_when_that_is_meant(run: Run, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [canned.job("01kabc", 1.0, "succeeded")]
    node.script = from_table({
        "GET /v1/jobs": {"jobs": jobs},
        "GET /v1/jobs/01kabc": jobs[0],
        "GET /v1/jobs/01xyz": canned.job("01xyz"),
        "DELETE /v1/jobs/01kabc": {"id": "01kabc", "deleted": True},
    })  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert run("jobs", "delete", "01ka", "--url", node.url)[0] == 130
    assert node.calls("DELETE", "/v1/jobs/01kabc") == []
    code, shown, _ = run("jobs", "delete", "01ka", "--yes", "--url", node.url)
    assert (code, shown) == (0, "deleted job 01kabc\n")
    assert len(node.calls("DELETE", "/v1/jobs/01kabc")) == 1
    for name, why in (("01xyz", "`parvada jobs cancel 01xyz` ends it"), ("none", "")):
        code, _, said = run("jobs", "delete", name, "--url", node.url)
        assert (code, why in said) == (1, True), "nobody is asked about what cannot be done"
        assert node.calls("DELETE", f"/v1/jobs/{name}") == []


def test_the_newest_jobs_are_listed_page_by_page(run: Run, node: ScriptedNode) -> None:
    pages = iter([{"jobs": [canned.job("01kabd")], "next": "1.5~01kabd"}, {"jobs": [canned.job("01kabc")]}])
    node.script = from_table({"GET /v1/jobs": lambda _: next(pages)})
    shown = json.loads(run("jobs", "ls", "--json", "--url", node.url)[1])
    assert [job["id"] for job in shown] == ["01kabd", "01kabc"]
    first, second = node.calls("GET", "/v1/jobs")
    assert ("after" in str(first), "1.5" in str(second)) == (False, True)


def test_a_leaderboard_ends_with_what_was_noted_about_its_data(run: Run, node: ScriptedNode) -> None:
    board = {"job": "01kabd", "rows": [ROW], "notes": ["metric accuracy: the classes are even", "2 rows left out"]}
    node.script = from_table(table(**{"GET /v1/jobs/01kabd/leaderboard": board}))
    code, shown, said = run("leaderboard", "01kabd", "--url", node.url)
    assert (code, "note" in shown) == (0, False)
    assert said.splitlines() == ["note: metric accuracy: the classes are even", "note: 2 rows left out"]
    code, shown, said = run("leaderboard", "01kabd", "--json", "--url", node.url)
    assert (json.loads(shown)["notes"], said) == (board["notes"], "")


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["nodes", "ls"],
        ["jobs", "ls"],
        ["jobs", "show", "01kabd"],
        ["leaderboard", "01kabd"],
        ["data", "ls"],
        ["predict", "iris", "--row", '{"petal": 1}'],
        ["events"],
    ],
)
def test_every_read_gives_clean_json(run: Run, node: ScriptedNode, command: list[str]) -> None:
    node.events = [event_block(1)]
    code, shown, said = run(*command, "--json", "--url", node.url)
    assert (code, said) == (0, "")
    assert json.loads(shown)
    assert "\x1b" not in shown


def test_pushing_says_what_the_data_is(run: Run, node: ScriptedNode, tmp_path: Path) -> None:
    (tmp_path / "iris.csv").write_text("a,species\n1,x\n")
    code, shown, said = run("data", "push", "iris.csv", "--target", "species", "--url", node.url)
    assert (code, shown) == (0, "iris v1: 150 rows, target 'species' (multiclass)\n")
    assert "parvada train iris" in said
    seen = node.calls("PUT", "/v1/datasets/iris")[0]
    assert (seen.query, seen.body) == ({"target": "species"}, b"a,species\n1,x\n")


def test_bad_data_is_1_with_the_node_s_own_words(run: Run, node: ScriptedNode, tmp_path: Path) -> None:
    (tmp_path / "iris.csv").write_text("a,b\n1\n")
    node.script = lambda _: problem(422, "ragged_row", "row 1 has 1 field, expected 2")
    code, shown, said = run("data", "push", "iris.csv", "--url", node.url)
    assert (code, shown) == (1, "")
    assert "row 1 has 1 field, expected 2" in said


def test_predictions_are_one_a_line(run: Run, node: ScriptedNode, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("petal\n1\n2\n")
    code, shown, said = run("predict", "iris", "--file", "x.csv", "--url", node.url)
    assert (code, shown) == (0, "setosa\nvirginica\n")
    assert "iris v1 (sklearn)" in said
    assert node.calls("POST", "/v1/models/iris/predict")[0].headers["content-type"] == "text/csv"


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict", "iris"],
        ["predict", "iris", "--row", "{"],
        ["predict", "iris", "--row", "[1]"],
        ["train"],
        ["train", "iris", "--cv", "1"],
        ["train", "iris@x"],
        ["data", "push", "no-such-file.csv"],
        ["leaderbord", "latest"],
        ["status", "--tokn-file", "x"],
    ],
)
def test_wrong_usage_is_2_and_calls_nobody(run: Run, node: ScriptedNode, arguments: list[str]) -> None:
    code, shown, said = run(*arguments)
    assert (code, shown) == (2, "")
    assert "Error" in said
    assert node.seen == []


def test_a_datasets_columns_are_shown_with_what_they_hold(run: Run, node: ScriptedNode) -> None:
    def column(name: str, kind: str, **figures: Any) -> dict[str, Any]:
        return {"name": name, "type": kind, "nullable": False, "missing": 0, "distinct": 9, **figures}

    columns = [
        column("Prix\u00a0HT\n net", "number", min=0.5, max=12.25, mean=3.0, missing=2),
        column("id", "integer", min=1.0, max=12345678.0, mean=6172839.5),
        column("when", "datetime", min="2024-01-01T00:00:00+00:00", max="2024-12-31T13:05:00+00:00"),
        column("day", "datetime", min="2024-01-01T00:00:00+00:00", max="2024-01-01T00:00:00+00:00"),
        column("colour", "category", categories=["blue", "dark\nred"]),
        column("many", "category", categories=[f"number {n}" for n in range(100)]),
        column("ok", "boolean", categories=[False, True]),
        column("note", "text"),
    ]
    node.script = from_table({"GET /v1/datasets/iris": canned.dataset(columns=columns)})
    code, shown, _ = run("data", "show", "iris", "--url", node.url)
    assert code == 0
    table = [re.split(r" {2,}", line) for line in shown.splitlines() if line][-9:]
    assert table == [
        ["COLUMN", "TYPE", "MISSING", "DISTINCT", "RANGE", "MEAN"],
        ["Prix HT net", "number", "2", "9", "0.5 … 12.25", "3"],
        ["id", "integer", "0", "9", "1 … 12345678", "6.17284e+06"],
        ["when", "datetime", "0", "9", "2024-01-01 … 2024-12-31 13:05:00", "–"],
        ["day", "datetime", "0", "9", "2024-01-01", "–"],
        ["colour", "category", "0", "9", "blue, dark red", "–"],
        ["many", "category", "0", "9", "number 0, number 1, number 2, number 3,…", "–"],
        ["ok", "boolean", "0", "9", "false, true", "–"],
        ["note", "text", "0", "9", "–", "–"],
    ]


def test_a_dataset_is_fetched_into_a_file(
    run: Run, node: ScriptedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    node.script = from_table({"GET /v1/datasets/iris/content": Answer(200, b"PAR1 and more")})
    code, shown, said = run("data", "get", "iris", "--url", node.url)
    assert (code, shown) == (0, "")
    assert said.startswith("iris.parquet: 13 B")
    assert Path("iris.parquet").read_bytes() == b"PAR1 and more"
    assert node.seen[-1].query == {"format": "parquet"}
    code, _, said = run("data", "get", "iris", "--url", node.url)
    assert code == 2
    assert "--force overwrites it" in said
    assert run("data", "get", "iris", "--format", "csv", "-o", "x.csv", "--url", node.url)[0] == 0
    assert Path("x.csv").exists()


def test_what_was_guessed_about_a_dataset_is_told(run: Run, node: ScriptedNode, tmp_path: Path) -> None:
    note = {"code": "missing_tokens", "message": "column 'c': 'NA' taken as missing", "column": "c"}
    made = canned.dataset(notes=[note])
    node.script = from_table({"PUT /v1/datasets/iris": Answer(201, made), "GET /v1/datasets/iris": made})
    file = tmp_path / "iris.csv"
    file.write_text("c,y\nNA,p\n")
    arguments = ("--type", "c:category", "--missing", "-", "--missing", "", "--decimal", ",", "--header", "first")
    code, _, said = run("data", "push", str(file), "--url", node.url, *arguments)
    assert code == 0, said
    assert "note: column 'c': 'NA' taken as missing" in said
    pairs = {("types", "c:category"), ("missing", "-"), ("decimal", ","), ("header", "first")}
    assert set(node.seen[-1].pairs) == pairs
    assert "note: column 'c'" in run("data", "show", "iris", "--url", node.url)[2]


def test_a_model_is_shown_with_what_it_takes_and_what_it_ignores(run: Run, node: ScriptedNode) -> None:
    inputs = [
        {"name": "Prix\nHT", "type": "number", "required": True},
        {"name": "b", "type": "text", "required": False},
    ]
    signature = {"inputs": inputs, "outputs": [], "ignored": ["y", "an\u00a0id"]}
    node.script = from_table(
        {"GET /v1/models/iris": canned.MODEL, "GET /v1/models/iris/versions/1": canned.version(signature=signature)}
    )
    code, shown, said = run("models", "show", "iris", "--url", node.url)
    assert code == 0, said
    assert "inputs     Prix HT (number), b (text, optional)\nignores    y, an id\n" in shown


def test_events_show_the_newest_lines(run: Run, node: ScriptedNode) -> None:
    node.events = [event_block(n, subject=f"j{n}") for n in range(1, 9)]
    code, shown, _ = run("events", "-n", "3", "--url", node.url)
    assert code == 0
    assert re.findall(r"j\d", shown) == ["j6", "j7", "j8"]


def test_init_makes_a_private_secret_once_and_the_token_comes_from_it(
    run: Run, node: ScriptedNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data"
    assert run("init", "--data", str(data))[0] == 0
    secret = (data / "secret").read_text()
    (data / "secret").chmod(0o644)
    assert run("init", "--data", str(data))[0] == 0
    assert (data / "secret").read_text() == secret
    assert (data / "secret").stat().st_mode & 0o777 == 0o600
    code, token, _ = run("token", "show", "--data", str(data))
    assert code == 0
    assert re.fullmatch(r"pvd_[a-z2-7]{20,}\n", token)
    monkeypatch.setenv("PARVADA_TOKEN", "of-lesser-role")
    assert run("token", "show", "--data", str(data))[1] == token
    monkeypatch.delenv("PARVADA_TOKEN")
    assert run("token", "create", "ci", "--data", str(data), "--url", node.url)[:2] == (0, "pvd_x\n")
    assert node.calls("POST", "/v1/tokens")[0].headers["authorization"] == f"Bearer {token.strip()}"
    code, join, _ = run("token", "join", "--data", str(data), "--url", node.url)
    assert code == 0
    assert join.startswith("pvj1_")


def test_a_node_whose_slot_is_taken_says_so(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from node.joining import slot

    monkeypatch.setenv("PARVADA_DATA", str(tmp_path))
    monkeypatch.setenv("PARVADA_SLOT", "3")
    monkeypatch.setattr("node.agent.logs.configure", lambda *_: None)
    monkeypatch.setattr("node.agent.claim", lambda data, number: slot.claim(data, number, wait=0.0))
    held = slot.claim(tmp_path, 3)
    try:
        code, shown, said = run("node")
    finally:
        held.release()
    assert (code, shown) == (1, "")
    assert said.startswith("parvada: slot 3 in ")
    assert "stop that node, or give another" in said


def test_a_token_that_cannot_be_made_is_explained(run: Run) -> None:
    code, shown, said = run("token", "show")
    assert (code, shown) == (1, "")
    assert "--data" in said


def test_finds_the_flock_in_this_folder(tmp_path: Path) -> None:
    data = tmp_path / ".parvada"
    data.mkdir()
    (data / "secret").write_text("ab" * 32)
    (data / "up.json").write_text(
        '{"nodes":[{"id":"x","pid":1,"api_port":8080,"data":"d"},{"id":"y","pid":2,"api_port":8081,"data":"e"}]}'
    )
    found = locate({}, tmp_path)
    assert found.urls == ("http://127.0.0.1:8080", "http://127.0.0.1:8081")
    assert found.secret == data / "secret"


@pytest.mark.parametrize(
    ("environment", "flag", "urls", "secret"),
    [
        ({}, (), ("http://127.0.0.1:8080",), True),
        ({"PARVADA_PORT": "9000"}, (), ("http://127.0.0.1:9000",), True),
        ({"PARVADA_URL": "http://a:1,b:2"}, (), ("http://a:1", "http://b:2"), False),
        (
            {"PARVADA_URL": "http://a:1"},
            ("http://127.0.0.1:7", "localhost:8"),
            ("http://127.0.0.1:7", "http://localhost:8"),
            True,
        ),
        ({}, ("http://[::1]:7",), ("http://[::1]:7",), True),
        ({}, ("https://elsewhere",), ("https://elsewhere",), False),
        ({}, ("http://127.0.0.1.example.org",), ("http://127.0.0.1.example.org",), False),
    ],
)
def test_flag_before_environment_before_default_and_no_local_secret_for_strangers(
    tmp_path: Path, environment: dict[str, str], flag: tuple[str, ...], urls: tuple[str, ...], secret: bool
) -> None:
    (tmp_path / ".parvada").mkdir()
    (tmp_path / ".parvada" / "secret").write_text("ab" * 32)
    found = locate(environment, tmp_path, urls=flag)
    assert found.urls == urls
    assert (found.secret is not None) is secret


def test_in_a_container_node_and_secret_are_found(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("ab" * 32)
    found = locate({"PARVADA_DATA": str(tmp_path)}, Path("/"))
    assert found.urls == ("http://127.0.0.1:8080",)
    assert found.secret == tmp_path / "secret"


def test_colour_only_for_people(node: ScriptedNode) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "parvada", "status", "--url", node.url],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout


def test_a_closed_pipe_is_no_failure(node: ScriptedNode) -> None:
    rows = [canned.job(f"{n:06}") for n in range(5000)]
    node.script = from_table({"GET /v1/jobs": {"jobs": rows}})
    command = f"{sys.executable} -m parvada jobs ls --url {node.url} | head -1"
    shown = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False, timeout=60
    )
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith("ID")


def test_seen_requests_carry_no_secret_in_the_url(
    run: Run, node: ScriptedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARVADA_TOKEN", "pvd_secret")
    run("jobs", "cancel", "01kabd", "--url", node.url)
    sent: list[Seen] = node.seen
    assert all("pvd_secret" not in seen.path + str(seen.query) for seen in sent)
    assert sent[-1].headers["authorization"] == "Bearer pvd_secret"
