"""How a run of the tests behaves: what is cheap first, modules side by side, no skip in CI, logs of the nodes beside a
failure."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import pytest
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.support import node_logs

TESTS = Path(__file__).parents[1]
TIERS = ("unit", "integration", "compose", "cluster", "chaos", "ray", "simulation")
"""In the order in which they begin: what breaks easily, then what takes longest, and at the end many small runs, which
keep all workers busy until the last long one is done."""
SPLIT = ("simulation",)
"""Their tests share nothing, so that each may run anywhere."""

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


class Modules(LoadScopeScheduling):  # type: ignore[misc]  # it is untyped
    """Which worker of pytest-xdist runs what: a module stays together, since its tests share what it starts, and one
    may build on another; modules begin in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return nodeid if any(module.startswith(f"tests/{tier}/") for tier in SPLIT) else module


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    config.option.loadscopereorder = False
    return Modules(config, log)


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
