"""What all tiers share: the engines that tests may need, steady property tests, and the manners of a run."""

import shutil
import subprocess

import pytest
from hypothesis import HealthCheck, settings

from tests.support.tiers import (  # noqa: F401  pytest finds hooks by their names here
    pytest_collection_modifyitems,
    pytest_make_collect_report,
    pytest_runtest_logfinish,
    pytest_runtest_makereport,
    pytest_xdist_make_scheduler,
)

# How long an example takes tells of the machine, not of the code. All else as hypothesis has it: fixed examples in CI.
settings.register_profile("parvada", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("parvada")


def _docker_missing() -> str:
    if shutil.which("docker") is None:
        return "docker is not installed"
    for command in (["docker", "version"], ["docker", "compose", "version"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        if done.returncode != 0:
            return f"`{' '.join(command)}` failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
    return ""


@pytest.fixture(scope="session")
def docker_engine() -> None:
    """A real Docker engine with Compose v2. Where a skip is no answer, `tests.support.tiers` makes it a failure."""
    reason = _docker_missing()
    if reason:
        pytest.skip(reason)
