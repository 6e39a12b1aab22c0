"""The workshop: results and errors come back as they are; a crash, a hang or a cancelled call costs one call only."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from node.processes.children import Supervisor
from node.processes.workshop import IDLE_SECONDS, LIMIT_SECONDS, Workshop, WorkshopBusy, WorkshopError
from tests.support.clock import Clock
from tests.unit.node.wait import alive, eventually

HERE = __name__


# ---------------------------------------------------------------- what runs in the worker
class Unportable(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def add(one: int, other: int) -> int:
    print("a print must not disturb the answers")  # noqa: T201
    return one + other


def pid() -> int:
    return os.getpid()


def complain(text: str) -> None:
    raise ValueError(text)


def complain_unportably() -> None:
    raise Unportable(3, "of its own kind")


def kill_yourself(number: int) -> None:
    os.kill(os.getpid(), number)


def leave() -> None:
    os.write(2, b"out of cheese\n")
    os._exit(7)


def hang(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)


def unpicklable() -> object:
    return lambda: 0


def echo(data: bytes) -> bytes:
    return data


# ---------------------------------------------------------------- the tests
@pytest.fixture
async def supervisor(tmp_path: Path) -> AsyncIterator[Supervisor]:
    made = Supervisor(tmp_path, lambda name, error: None)
    yield made
    await made.stop()


@pytest.fixture
async def workshop(supervisor: Supervisor) -> AsyncIterator[Workshop]:
    made = Workshop(supervisor)
    yield made
    await made.stop()


async def test_results_come_back_and_the_process_is_kept(workshop: Workshop) -> None:
    assert await workshop.run(f"{HERE}:add", 2, 3) == 5
    assert await workshop.run(f"{HERE}:pid") == await workshop.run(f"{HERE}:pid") != os.getpid()


async def test_large_arguments_and_results(workshop: Workshop) -> None:
    data = os.urandom(5_000_000)
    assert await workshop.run(f"{HERE}:echo", data) == data


async def test_exceptions_come_back_as_themselves(workshop: Workshop) -> None:
    with pytest.raises(ValueError, match="row 3"):
        await workshop.run(f"{HERE}:complain", "row 3")
    with pytest.raises(WorkshopError, match="Unportable: of its own kind"):
        await workshop.run(f"{HERE}:complain_unportably")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        await workshop.run("no_such_module:nothing")
    with pytest.raises(WorkshopError, match="cannot be passed on"):
        await workshop.run(f"{HERE}:unpicklable")


@pytest.mark.parametrize(
    ("function", "args", "told"),
    [
        ("kill_yourself", (signal.SIGKILL,), "needed more memory"),
        ("kill_yourself", (signal.SIGSEGV,), "status -11"),
        ("leave", (), r"status 7: (.|\n)*out of cheese"),
    ],
)
async def test_a_crash_fails_one_call(workshop: Workshop, function: str, args: tuple[int, ...], told: str) -> None:
    with pytest.raises(WorkshopError, match=told):
        await workshop.run(f"{HERE}:{function}", *args)
    assert await workshop.run(f"{HERE}:add", 1, 1) == 2


async def test_a_call_beyond_its_limit_is_killed(workshop: Workshop, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    call = asyncio.create_task(workshop.run(f"{HERE}:hang", str(path)))
    await eventually(lambda: path.exists() and bool(path.read_text()))
    await clock.advance(LIMIT_SECONDS / 2)
    assert alive(int(path.read_text()))
    assert not call.done()
    await clock.advance(LIMIT_SECONDS / 2)
    with pytest.raises(WorkshopError, match=r"took longer than 600 s"):
        await call
    assert not alive(int(path.read_text()))


async def test_a_cancelled_call_takes_its_process_along(workshop: Workshop, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    call = asyncio.create_task(workshop.run(f"{HERE}:hang", str(path)))
    await eventually(lambda: path.exists() and bool(path.read_text()))
    call.cancel()
    await asyncio.wait([call])
    assert not alive(int(path.read_text()))
    assert await workshop.run(f"{HERE}:add", 1, 1) == 2


async def test_calls_beyond_the_queue_are_refused(supervisor: Supervisor, tmp_path: Path) -> None:
    workshop = Workshop(supervisor, waiting=1)
    calls = [asyncio.create_task(workshop.run(f"{HERE}:hang", str(tmp_path / str(n)))) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(WorkshopBusy):
        await workshop.run(f"{HERE}:add", 1, 1)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


async def test_an_idle_worker_is_ended(workshop: Workshop, clock: Clock) -> None:
    closing = asyncio.create_task(workshop.close_idle())
    number = await workshop.run(f"{HERE}:pid")
    await clock.advance(IDLE_SECONDS / 2)
    assert await workshop.run(f"{HERE}:pid") == number
    await clock.advance(1.5 * IDLE_SECONDS)
    await eventually(lambda: not alive(number))
    assert await workshop.run(f"{HERE}:add", 1, 1) == 2
    closing.cancel()
    await asyncio.wait([closing])
