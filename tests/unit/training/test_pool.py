"""The one pool, as the agent's workshop and as the trainer's own: results and errors come back as they are; a crash, a
hang or a cancelled call costs one call only; no process outlives its owner."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from node.processes.children import Supervisor
from node.processes.workshop import WORKSHOP
from tests.support.clock import Clock
from tests.unit.node.wait import alive, eventually
from training.errors import PoolBusy, PoolClosed, TaskFailed, WorkerLost
from training.inline import PlainChildren
from training.outbox import PAUSE_SECONDS
from training.pool import START_SECONDS, Pool
from training.pool_worker import Raised, Returned
from training.ports import CurvePoint, Emit, Launcher, Message, MoreTime, to_nobody

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


def dawdle() -> None:
    gate = Path(os.environ["GATE"])
    gate.with_suffix(".reached").touch()
    while not gate.exists():
        time.sleep(0.01)
    os.environ["DAWDLED"] = "yes"


def dawdled() -> tuple[str, bool]:
    return os.environ["GATE"], "DAWDLED" in os.environ


def unpicklable() -> object:
    return lambda: 0


def echo(data: bytes) -> bytes:
    return data


def tell(messages: list[CurvePoint], emit: Emit = to_nobody) -> str:
    for message in messages:
        emit(message)
    return "done"


def tell_and_hang(path: str, emit: Emit) -> None:
    emit(POINTS[0])
    hang(path)


def ask_for_time(gate: str, emit: Emit) -> str:
    emit(MoreTime(1000.0))
    emit(POINTS[0])
    while not Path(gate).exists():
        time.sleep(0.01)
    return "in time"


def tell_and_crash(gate: str, emit: Emit) -> None:
    emit(POINTS[0])
    while not Path(gate).exists():
        time.sleep(0.01)
    os.abort()


def tell_and_complain(emit: Emit) -> None:
    emit(POINTS[0])
    raise ValueError("row 3")


def tell_a_lot(number: int, emit: Emit) -> float:
    began = time.monotonic()
    for iteration in range(1, number + 1):
        emit(CurvePoint(iteration, "train", "loss", 1.0, 0.0))
    return time.monotonic() - began


POINTS = [CurvePoint(1, "train", f"m{number}", 0.5, 0.1) for number in range(10)]


# ---------------------------------------------------------------- the tests
@pytest.fixture(params=["supervisor", "plain"])
async def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Launcher]:
    if request.param == "plain":
        yield PlainChildren()
        return
    made = Supervisor(tmp_path, lambda name, error: None)
    yield made
    await made.stop()


@pytest.fixture
async def pool(launcher: Launcher) -> AsyncIterator[Pool]:
    made = Pool(launcher, WORKSHOP)
    yield made
    await made.stop()


async def test_results_come_back_and_the_process_is_kept(pool: Pool) -> None:
    assert await pool.run(f"{HERE}:add", 2, 3) == 5
    assert await pool.run(f"{HERE}:pid") == await pool.run(f"{HERE}:pid") != os.getpid()


async def test_large_arguments_and_results(pool: Pool) -> None:
    data = os.urandom(5_000_000)
    assert await pool.run(f"{HERE}:echo", data) == data


async def test_exceptions_come_back_as_themselves(pool: Pool) -> None:
    with pytest.raises(ValueError, match="row 3"):
        await pool.run(f"{HERE}:complain", "row 3")
    with pytest.raises(TaskFailed, match="Unportable: of its own kind"):
        await pool.run(f"{HERE}:complain_unportably")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        await pool.run("no_such_module:nothing")
    with pytest.raises(TaskFailed, match="cannot be passed on"):
        await pool.run(f"{HERE}:unpicklable")


@pytest.mark.parametrize(
    ("function", "args", "told"),
    [
        ("kill_yourself", (signal.SIGKILL,), "needed more memory"),
        ("kill_yourself", (signal.SIGSEGV,), "status -11"),
        ("leave", (), "status 7"),
    ],
)
async def test_a_crash_fails_one_call(pool: Pool, function: str, args: tuple[int, ...], told: str) -> None:
    with pytest.raises(WorkerLost, match=told):
        await pool.run(f"{HERE}:{function}", *args)
    assert await pool.run(f"{HERE}:add", 1, 1) == 2


async def test_the_end_of_the_log_is_told_where_there_is_one(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, lambda name, error: None)
    with pytest.raises(WorkerLost, match=r"status 7: (.|\n)*out of cheese"):
        await Pool(supervisor, WORKSHOP).run(f"{HERE}:leave")
    await supervisor.stop()


async def test_a_call_beyond_its_limit_is_killed(pool: Pool, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    call = asyncio.create_task(pool.run(f"{HERE}:hang", str(path)))
    await eventually(lambda: path.exists() and bool(path.read_text()))
    await clock.advance(WORKSHOP.seconds / 2)
    assert alive(int(path.read_text()))
    assert not call.done()
    await clock.advance(WORKSHOP.seconds / 2)
    with pytest.raises(TaskFailed, match=r"took longer than 600 s"):
        await call
    assert not alive(int(path.read_text()))


async def test_a_cancelled_call_takes_its_process_along(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "pid"
    call = asyncio.create_task(pool.run(f"{HERE}:hang", str(path)))
    await eventually(lambda: path.exists() and bool(path.read_text()))
    call.cancel()
    await asyncio.wait([call])
    assert not alive(int(path.read_text()))
    assert await pool.run(f"{HERE}:add", 1, 1) == 2


async def test_calls_beyond_the_queue_are_refused(launcher: Launcher, tmp_path: Path) -> None:
    pool = Pool(launcher, msgspec.structs.replace(WORKSHOP, waiting=1))
    calls = [asyncio.create_task(pool.run(f"{HERE}:hang", str(tmp_path / str(n)))) for n in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(PoolBusy):
        await pool.run(f"{HERE}:add", 1, 1)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


async def test_an_idle_worker_is_ended(pool: Pool, clock: Clock) -> None:
    closing = asyncio.create_task(pool.close_idle())
    number = await pool.run(f"{HERE}:pid")
    await clock.advance(WORKSHOP.idle_seconds / 2)
    assert await pool.run(f"{HERE}:pid") == number
    await clock.advance(1.5 * WORKSHOP.idle_seconds)
    await eventually(lambda: not alive(number))
    assert await pool.run(f"{HERE}:add", 1, 1) == 2
    closing.cancel()
    await asyncio.wait([closing])


async def test_what_is_preloaded_takes_no_call_s_time(launcher: Launcher, clock: Clock, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    settings = msgspec.structs.replace(WORKSHOP, preload=f"{HERE}:dawdle", environment={"GATE": str(gate)})
    pool = Pool(launcher, settings)
    call = asyncio.create_task(pool.run(f"{HERE}:dawdled", seconds=START_SECONDS / 4))
    await eventually(gate.with_suffix(".reached").exists)
    await clock.advance(START_SECONDS / 2)
    assert not call.done()
    gate.touch()
    assert await call == (str(gate), True)
    await pool.stop()


@pytest.mark.parametrize("preload", ["no_such_module:nothing", f"{HERE}:leave"])
async def test_a_process_that_cannot_start_is_no_call_s_fault(launcher: Launcher, preload: str) -> None:
    pool = Pool(launcher, msgspec.structs.replace(WORKSHOP, preload=preload))
    with pytest.raises(PoolClosed, match=r"a start of workshop ended with status [17]"):
        await pool.run(f"{HERE}:pid")
    await pool.stop()


async def test_stopping_ends_every_process_and_refuses_what_comes_later(pool: Pool, tmp_path: Path) -> None:
    idle = await pool.run(f"{HERE}:pid")
    calls = [asyncio.create_task(pool.run(f"{HERE}:hang", str(tmp_path / str(n)))) for n in range(3)]
    await eventually(lambda: all((tmp_path / n).exists() and (tmp_path / n).read_text() for n in "01"))
    assert pool.running == 2
    await pool.stop()
    assert not any(alive(pid) for pid in (idle, *(int((tmp_path / n).read_text()) for n in "01")))
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [WorkerLost, WorkerLost, PoolClosed]
    assert pool.running == 0
    with pytest.raises(PoolClosed):
        await pool.run(f"{HERE}:pid")
    await pool.stop()


OWNER = """
import asyncio, sys
from node.processes.workshop import WORKSHOP
from training.inline import PlainChildren
from training.pool import START_SECONDS, Pool

asyncio.run(Pool(PlainChildren(), WORKSHOP).run(sys.argv[1], sys.argv[2]))
"""


async def test_no_process_outlives_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    owner = await asyncio.create_subprocess_exec(sys.executable, "-c", OWNER, f"{HERE}:hang", str(path))
    await eventually(lambda: path.exists() and bool(path.read_text()))
    owner.kill()
    await owner.wait()
    await eventually(lambda: not alive(int(path.read_text())))


# ---------------------------------------------------------------- what is told before the end
class Ear:
    """Notes what it hears."""

    def __init__(self) -> None:
        self.heard: list[Message] = []

    def __call__(self, message: Message) -> None:
        self.heard.append(message)


async def test_messages_come_in_order_and_before_the_result(pool: Pool) -> None:
    ear = Ear()
    assert await pool.call(f"{HERE}:tell", (POINTS,), on_message=ear) == Returned("done")
    assert ear.heard == POINTS
    assert await pool.call(f"{HERE}:tell", (POINTS,)) == Returned("done"), "and nobody has to listen"
    assert await pool.run(f"{HERE}:add", 1, 1) == 2


async def test_a_message_comes_while_the_call_still_runs_and_its_limit_kills_it(
    pool: Pool, clock: Clock, tmp_path: Path
) -> None:
    ear, path = Ear(), tmp_path / "pid"
    call = asyncio.create_task(pool.call(f"{HERE}:tell_and_hang", (str(path),), 100.0, "fit", ear))
    await eventually(lambda: bool(ear.heard) and path.exists() and bool(path.read_text()))
    assert not call.done()
    await clock.advance(100.0)
    with pytest.raises(TaskFailed, match=r"fit took longer than 100 s"):
        await call
    assert not alive(int(path.read_text()))
    assert ear.heard == POINTS[:1]


async def test_what_a_call_does_after_its_work_has_a_limit_of_its_own(pool: Pool, clock: Clock, tmp_path: Path) -> None:
    ear, gate = Ear(), tmp_path / "gate"
    call = asyncio.create_task(pool.call(f"{HERE}:ask_for_time", (str(gate),), 100.0, "fit", ear))
    await eventually(lambda: bool(ear.heard))
    await clock.advance(900.0)
    assert not call.done()
    gate.touch()
    assert await call == Returned("in time")
    assert ear.heard == POINTS[:1], "it is no message"
    gate.unlink()
    call = asyncio.create_task(pool.call(f"{HERE}:ask_for_time", (str(gate),), 100.0, "fit", ear))
    await eventually(lambda: len(ear.heard) == 2)
    await clock.advance(1000.0)
    with pytest.raises(TaskFailed, match="fit took longer"):
        await call


async def test_a_call_that_is_cancelled_while_it_tells_takes_its_process_along(pool: Pool, tmp_path: Path) -> None:
    ear, path = Ear(), tmp_path / "pid"
    call = asyncio.create_task(pool.call(f"{HERE}:tell_and_hang", (str(path),), on_message=ear))
    await eventually(lambda: bool(ear.heard) and path.exists() and bool(path.read_text()))
    call.cancel()
    await asyncio.wait([call])
    assert not alive(int(path.read_text()))
    assert await pool.run(f"{HERE}:add", 1, 1) == 2


async def test_what_was_told_before_a_failure_has_come(pool: Pool, tmp_path: Path) -> None:
    ear, gate = Ear(), tmp_path / "gate"
    call = asyncio.create_task(pool.call(f"{HERE}:tell_and_crash", (str(gate),), on_message=ear))
    await eventually(lambda: bool(ear.heard))
    gate.touch()
    with pytest.raises(WorkerLost, match="status -6"):
        await call
    assert ear.heard == POINTS[:1]
    raised = await pool.call(f"{HERE}:tell_and_complain", (), on_message=ear)
    assert isinstance(raised, Raised)
    assert raised.text == "ValueError: row 3"
    assert ear.heard == POINTS[:1] * 2


async def test_a_flood_of_messages_is_thinned_out_where_it_rises(pool: Pool) -> None:
    ear = Ear()
    began = time.monotonic()
    answer = await pool.call(f"{HERE}:tell_a_lot", (100_000,), on_message=ear)
    elapsed = time.monotonic() - began
    assert isinstance(answer, Returned)
    assert len(ear.heard) <= elapsed / PAUSE_SECONDS + 2
    iterations = [message.iteration for message in ear.heard]
    assert iterations == sorted(set(iterations))
    assert iterations[-1] == 100_000
