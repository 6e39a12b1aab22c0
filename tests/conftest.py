"""Tiers of tests: what needs a real engine is skipped with a reason where the engine is missing, and fails in CI."""

import os
import shutil
import subprocess

import pytest


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
    """A real Docker engine with Compose v2."""
    reason = _docker_missing()
    if reason:
        skip_or_fail(reason)


def skip_or_fail(reason: str) -> None:
    """A missing engine is a reason to skip on a laptop and a failure in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have every engine: {reason}")
    pytest.skip(reason)
