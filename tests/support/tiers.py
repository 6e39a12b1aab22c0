"""How a run of the tests behaves: cheap tiers first, no skip in CI, logs of the nodes beside a failure."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support import node_logs

TESTS = Path(__file__).parents[1]
TIERS = ("unit", "integration", "simulation", "cluster", "chaos", "ray", "compose")
"""In the order in which they run: what breaks shows early, and what is dear to start comes last."""

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def rank(path: Path) -> int:
    """Where the tier of this file stands; what belongs to none comes first, so that nobody overlooks it."""
    tier = path.relative_to(TESTS).parts[0] if path.is_relative_to(TESTS) else ""
    return TIERS.index(tier) if tier in TIERS else -1


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.path))


def without_skips(report: Report) -> Report:
    """In CI every engine is there: what would be skipped for want of one has failed."""
    if in_ci() and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: nothing may be skipped in CI: {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = without_skips((yield))
    if report.failed:
        report.sections += node_logs.sections()
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return without_skips((yield))


def pytest_runtest_logfinish() -> None:
    node_logs.drop_ended()
