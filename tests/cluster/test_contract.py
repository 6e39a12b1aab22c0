"""The API does what /openapi.json says of it: schemathesis asks every call of a real node in thousands of ways, with a
token and without one, and finds nothing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.support.data import iris_csv
from tests.support.flock import Flock, running
from tests.unit.fuzz import DEPTH

# In this order: what is asked without a token changes nothing, and what is asked with one deletes what the other reads.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600 * DEPTH), pytest.mark.random_order(disabled=True)]

SCHEMATHESIS: Final = Path(sys.executable).with_name("schemathesis")
SETTINGS: Final = Path(__file__).parents[2] / "schemathesis.toml"
QUICKLY: Final = ("--seed", "1", "--generation-deterministic", "--max-examples", str(2 * DEPTH), "--no-shrink")
"""The same in each run; `make fuzz` looks for longer."""

MODELS: Final = ["GaussianNB", "DecisionTreeClassifier"]
WRITES: Final = {
    *("PUT /v1/datasets/{dataset}", "POST /v1/jobs", "PUT /v1/models/{model}/aliases/{alias}"),
    *("POST /v1/tokens", "POST /v1/cluster/secret/rotate"),
}
"""What an admin can do at any time. Of other writes it depends on what the jobs do just then, or on another node."""


@pytest.fixture(scope="module")
def flock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flock]:
    """One node with data, a job that ended, and the model that it published."""
    with running(tmp_path_factory.mktemp("contract") / "data", 1) as alone:
        node = alone.nodes[0]
        alone.push(node, "iris", iris_csv(), "?target=species")
        job = alone.submit(node, {"datasets": ["iris"], "models": MODELS, "cv": {"folds": 2}})
        assert alone.wait_for_job(job)["state"] == "succeeded"
        alone.wait_for_answer(node, "GET", "/readyz")
        yield alone


def examined(flock: Flock, folder: Path, *options: str) -> dict[str, int]:
    """How many good requests of each call were answered with success. Fails with all that is found."""
    report = folder / "report.json"
    run = subprocess.run(
        [
            str(SCHEMATHESIS),
            *("--config-file", str(SETTINGS)),
            *("run", f"{flock.nodes[0].url}/openapi.json"),
            *("--report", "json", "--report-json-path", str(report)),
            *("--continue-on-failure", *QUICKLY, *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=500 * DEPTH,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    rates: dict[str, dict[str, dict[str, int]]] = json.loads(report.read_bytes())["valid_rates"]
    return {call: sum(phase["accepted"] for phase in phases.values()) for call, phases in rates.items()}


def test_without_a_token(flock: Flock, tmp_path: Path) -> None:
    before = flock.read(flock.nodes[0], "/v1/cluster")["applied_index"]
    accepted = examined(flock, tmp_path)
    assert [call for call, count in accepted.items() if not count] == []
    assert {call.split()[0] for call in accepted} == {"GET", "POST"}
    written = flock.read(flock.nodes[0], "/v1/audit?limit=1000")["entries"]
    assert [entry for entry in written if entry["index"] > before and entry["actor"] == "anonymous"] == []


def test_with_an_admins_token(flock: Flock, tmp_path: Path) -> None:
    # Not that of the cluster's secret: among the calls is one that replaces it.
    token = flock.ask(flock.nodes[0], "POST", "/v1/tokens", {"name": "examiner", "role": "admin"}).body["token"]
    accepted = examined(flock, tmp_path, "--header", f"Authorization: Bearer {token}")
    assert {call for call, count in accepted.items() if count} >= WRITES
