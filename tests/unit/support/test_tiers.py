"""A run of the tests keeps its promises: order of tiers, what stays together, no skip in CI, logs beside failures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import node_logs
from tests.support.tiers import TESTS, TIERS, Modules, rank

HOOKS = """
from tests.support.tiers import pytest_make_collect_report, pytest_runtest_logfinish, pytest_runtest_makereport
"""
SKIPPED = """
import pytest

@pytest.fixture
def engine():
    pytest.skip("no engine in a fixture")

def test_needs_it(engine): pass

def test_asks_for_itself(): pytest.skip("no engine in a test")

@pytest.mark.skipif(True, reason="no engine by a mark")
def test_is_marked(): pass

def test_needs_nothing(): pass
"""
MODULE_SKIPPED = 'import pytest; pytest.importorskip("no_such_engine")\n'
FAILS = """
from pathlib import Path
from tests.support import node_logs

def test_fails(tmp_path):
    node_logs.started("flock", lambda: node_logs.of_folder(tmp_path))
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "node-1.log").write_text("the disk is full")
    node_logs.ended("flock")
    (tmp_path / "logs" / "node-1.log").unlink()
    assert False
"""


def run(folder: Path, ci: str, **files: str) -> str:
    """What pytest prints, and its exit code at the end. Without plugins it starts in no time."""
    for name, content in {"conftest": HOOKS, **files}.items():
        (folder / f"{name}.py").write_text(content)
    options = ["-q", "--continue-on-collection-errors", "-p", "no:cacheprovider", "-c", os.devnull]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", folder, folder],
        cwd=TESTS.parent,
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}"


@pytest.mark.timeout(120)
def test_without_an_engine_tests_are_skipped(tmp_path: Path) -> None:
    said = run(tmp_path, "", test_some=SKIPPED, test_all=MODULE_SKIPPED)
    assert "1 passed, 4 skipped" in said
    assert said.endswith("exit 0")


@pytest.mark.timeout(120)
def test_in_ci_every_skip_is_a_failure_and_a_failure_brings_the_logs_of_the_nodes(tmp_path: Path) -> None:
    said = run(tmp_path, "true", test_some=SKIPPED, test_all=MODULE_SKIPPED, test_one=FAILS)
    for reason in ("in a fixture", "in a test", "by a mark", "could not import 'no_such_engine'"):
        assert re.search(f"nothing may be skipped in CI: Skipped: .*{reason}", said), said
    assert "1 passed" in said
    assert "skipped in" not in said.splitlines()[-2]
    assert said.endswith("exit 1")
    assert re.search(r"end of .*node-1.log -+\nthe disk is full", said), said


def test_a_long_log_is_cut_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(100_000)))
    lines = node_logs.tail(path).splitlines()
    assert lines[-1] == "line 99999"
    assert len(lines) == node_logs.TAIL_LINES
    assert "cannot be read" in node_logs.tail(tmp_path / "none")


def test_modules_stay_together_and_seeds_need_not() -> None:
    scope = Modules._split_scope
    assert scope(None, "tests/cluster/test_up.py::test_a") == scope(None, "tests/cluster/test_up.py::test_b[1]")  # type: ignore[arg-type]
    assert scope(None, "tests/cluster/test_up.py::test_a") != scope(None, "tests/cluster/test_blobs.py::test_a")  # type: ignore[arg-type]
    seeds = [f"tests/simulation/test_simulation.py::test_clusters[{first}]" for first in (0, 25)]
    assert [scope(None, seed) for seed in seeds] == seeds  # type: ignore[arg-type]


def test_every_folder_has_its_place() -> None:
    folders = {path.name for path in TESTS.iterdir() if any(path.glob("**/test_*.py"))}
    assert folders == set(TIERS)
    ordered = sorted((TESTS / name / "ray" / "test_x.py" for name in TIERS[::-1]), key=rank)
    assert [path.relative_to(TESTS).parts[0] for path in ordered] == list(TIERS)
