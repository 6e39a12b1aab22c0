"""A killed agent takes its children and grandchildren along; a child that dies comes back, later each time."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.processes import children, deathwatch
from node.processes.children import BACKOFF_FIRST, BACKOFF_MOST, GRACE_SECONDS, Supervisor
from tests.support.clock import Clock
from tests.unit.node.wait import alive, eventually, wait_for

# A child that starts a grandchild in a process group of its own, as Ray's raylet may do with its workers.
FAMILY = """
import os, subprocess, sys, time
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], process_group=0)
with open(sys.argv[1] + ".tmp", "w") as file:
    file.write(f"{os.getpid()} {grandchild.pid}")
os.rename(sys.argv[1] + ".tmp", sys.argv[1])
time.sleep(600)
"""

SLOW_AGENT = """
import time
from node.processes.watchdog import Watchdog
Watchdog.add = lambda self, sid: time.sleep(600)
"""
"""Found by a machine so busy that the agent was killed before it had said what it had started."""

AGENT = """
import asyncio, sys
from pathlib import Path
from node.processes.children import Supervisor

async def main():
    supervisor = Supervisor(Path(sys.argv[1]), lambda name, error: None)
    supervisor.spawn([sys.executable, "-c", sys.argv[2], sys.argv[3]], {}, "family")
    await asyncio.sleep(600)

asyncio.run(main())
"""

OUTER = f"""
import asyncio, sys
from pathlib import Path
from node.processes.children import Supervisor

async def main():
    supervisor = Supervisor(Path(sys.argv[1]), lambda name, error: None)
    supervisor.spawn([sys.executable, "-c", {AGENT!r}, sys.argv[1] + "2", *sys.argv[2:]], {{}}, "agent")
    await asyncio.sleep(600)

asyncio.run(main())
"""
"""As `parvada up`: what it starts has children of its own."""


def family(path: Path) -> tuple[int, int]:
    wait_for(path.exists)
    child, grandchild = map(int, path.read_text().split())
    return child, grandchild


@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    failures: list[str] = []
    made = Supervisor(tmp_path / "logs", lambda name, error: failures.append(f"{name}: {error}"))
    yield made
    await made.stop()
    assert failures == []


@pytest.mark.parametrize("agent_program", [AGENT, SLOW_AGENT + AGENT, OUTER], ids=["told", "not yet told", "two deep"])
def test_a_killed_agent_takes_children_and_grandchildren_along(tmp_path: Path, agent_program: str) -> None:
    pids = tmp_path / "pids"
    agent = subprocess.Popen([sys.executable, "-c", agent_program, str(tmp_path / "logs"), FAMILY, str(pids)])
    child, grandchild = family(pids)
    assert alive(child)
    assert alive(grandchild)
    agent.kill()
    agent.wait()
    wait_for(lambda: not alive(child) and not alive(grandchild))


async def test_killing_a_child_ends_its_whole_session(supervisor: Supervisor, tmp_path: Path) -> None:
    process = await supervisor.launch([sys.executable, "-c", FAMILY, str(tmp_path / "pids")], name="family")
    child, grandchild = await asyncio.to_thread(family, tmp_path / "pids")
    await supervisor.kill(process, grace=5)
    assert process.returncode == -signal.SIGTERM
    assert not alive(child)
    assert not alive(grandchild)


async def test_a_child_that_ignores_sigterm_is_killed_after_its_grace(
    supervisor: Supervisor, clock: Clock, tmp_path: Path
) -> None:
    stubborn = "trap '' TERM; touch $0; sleep 600; sleep 600"
    process = await supervisor.launch(["/bin/sh", "-c", stubborn, str(tmp_path / "up")], name="stubborn")
    await eventually((tmp_path / "up").exists)
    begun = clock()
    await clock.run(supervisor.kill(process))
    assert clock() - begun >= GRACE_SECONDS
    assert process.returncode == -signal.SIGKILL


async def test_a_child_is_restarted_later_each_time_and_its_output_kept(supervisor: Supervisor, clock: Clock) -> None:
    exits: list[tuple[float, int]] = []
    child = supervisor.spawn(
        ["/bin/sh", "-c", "echo said $WHAT; exit 3"],
        {"WHAT": "something"},
        "short",
        on_exit=lambda status: exits.append((clock(), status)),
    )
    for number in range(3):
        await eventually(lambda number=number: len(exits) > number)  # type: ignore[misc]
        await clock.until(lambda number=number: child.restarts > number)  # type: ignore[misc]
        assert clock() - exits[number][0] >= BACKOFF_FIRST * 2**number
    await eventually(lambda: len(exits) == 4)
    await child.stop()
    assert {status for _, status in exits} == {3}
    assert supervisor.tail("short").count("said something") == 4
    await clock.advance(2 * BACKOFF_MOST)
    assert child.restarts == 3, "a stopped child stays stopped"


async def test_a_dead_watchdog_is_replaced_and_still_watches(supervisor: Supervisor) -> None:
    first = await supervisor.launch(["/bin/sleep", "600"], name="first")
    watchdog = supervisor.pids()[-1]
    os.kill(watchdog, signal.SIGKILL)
    await eventually(lambda: not alive(watchdog))
    second = await supervisor.launch(["/bin/sleep", "600"], name="second")
    assert supervisor.pids()[-1] != watchdog
    # Closing the pipe is all that the watchdog ever sees of an agent's death.
    await supervisor._watchdog.stop()
    assert not alive(first.pid)
    assert not alive(second.pid)


async def test_a_program_that_does_not_exist_is_named(supervisor: Supervisor) -> None:
    with pytest.raises(children.ChildError, match=r"cannot start ghost .*/no/such/program"):
        await supervisor.launch(["/no/such/program"], name="ghost")


async def test_a_log_that_cannot_be_opened_is_no_end_of_the_node(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    failures: list[str] = []
    supervisor = Supervisor(tmp_path / "logs", lambda name, error: failures.append(name))
    child = supervisor.spawn([sys.executable, "-c", "pass"], {}, "front")
    try:
        await clock.until(lambda: child.restarts == 1)
        with pytest.raises(children.ChildError, match="cannot start other: its log"):
            await supervisor.launch([sys.executable, "-c", "pass"], name="other")
    finally:
        await supervisor.stop()
    assert failures == []


def test_a_large_log_is_set_aside_at_start(tmp_path: Path) -> None:
    path = tmp_path / "front.log"
    path.write_bytes(b"x" * (children.LOG_BYTES + 1))
    os.close(children.open_log(path))
    assert path.stat().st_size == 0
    assert path.with_suffix(".log.1").stat().st_size == children.LOG_BYTES + 1


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["+5 77\n"], {5: 77}),
        (["+5 77\n", "+6 78\n", "-5\n"], {6: 78}),
        (["-9\n"], {}),
    ],
)
def test_what_the_watchdog_remembers(lines: list[str], left: dict[int, int]) -> None:
    assert deathwatch.watch(lines) == left


def test_a_reused_pid_is_left_alone() -> None:
    me = os.getpid()
    assert deathwatch.still_ours({me: deathwatch.started_at(me)}) == [me]
    assert deathwatch.still_ours({me: deathwatch.started_at(me) + 1}) == []
