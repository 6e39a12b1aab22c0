"""The node's child processes: each a session of its own with a log file, restarted with back-off, dead when we are."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from node import logs
from node.processes import deathwatch
from node.processes.watchdog import Watchdog
from node.tasks import OnFailure, Tasks

log = logs.get("node.processes.children")

BACKOFF_FIRST, BACKOFF_MOST = 0.2, 10.0
"""Seconds before a restart: doubled each time."""
STEADY_SECONDS = 30.0
"""A child that ran this long starts again from the first back-off."""
GRACE_SECONDS = 10.0
"""Between SIGTERM and SIGKILL."""
LOG_BYTES = 10 * 1024 * 1024
"""A log file larger than this is set aside (one is kept) when its child is started."""
CHECK_SECONDS = 5.0
TAIL_LINES = 20


class ChildError(OSError):
    """A child process could not be started."""


def log_tail(path: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a child's log, for messages; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 16_384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


def open_log(path: Path) -> int:
    """A descriptor to append to; rotates a file that has grown too large."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > LOG_BYTES:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


class Supervisor:
    """Starts processes that cannot outlive this one.

    `launch` gives a bare process; `spawn` a `Child` that is restarted until it is stopped.
    """

    def __init__(self, log_folder: Path, on_failure: OnFailure) -> None:
        self._folder = log_folder
        self._watchdog = Watchdog()
        self._tasks = Tasks(on_failure)
        self._children: list[Child] = []
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._checking = False

    async def launch(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, name: str = "child", *, pipes: bool = False
    ) -> asyncio.subprocess.Process:
        """Start a process in a session of its own, its output appended to `NAME.log`. `env` is added to ours.

        With `pipes` its standard input and output are pipes to the caller. End it by `kill`.

        Raises:
            ChildError: the program cannot be started.
        """
        start = asyncio.create_task(self._start(argv, env or {}, name, pipes), name=f"launch.{name}")
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:
            with contextlib.suppress(ChildError):
                await self.kill(await start, grace=0)  # nobody would ever know of it
            raise

    async def _start(
        self, argv: Sequence[str], env: Mapping[str, str], name: str, pipes: bool
    ) -> asyncio.subprocess.Process:
        try:
            output = await asyncio.to_thread(open_log, self.log_path(name))
        except OSError as error:
            raise ChildError(f"cannot start {name}: its log {self.log_path(name)}: {error}") from error
        self._watchdog.prepare()
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                env={**os.environ, **env, **self._watchdog.mark},
                stdin=asyncio.subprocess.PIPE if pipes else asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if pipes else output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            raise ChildError(f"cannot start {name} ({argv[0]}): {error}") from error
        finally:
            os.close(output)
        self._watchdog.add(process.pid)
        self._running[process.pid] = process
        self._start_checking()
        return process

    async def kill(self, process: asyncio.subprocess.Process, grace: float = GRACE_SECONDS) -> None:
        """SIGTERM to its group, `grace` seconds, then SIGKILL to all that is left of its session."""
        if process.pid not in self._running:
            return  # killed before: the pid may be somebody else's by now
        if process.returncode is None and grace > 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await process.wait()
        # Also after an orderly exit: what it started may still be there.
        left = await asyncio.to_thread(deathwatch.kill_sessions, self._watchdog.ours(process.pid))
        if left:
            log.error("child.unkillable", pids=left)
        else:
            await process.wait()
            self._forget(process)

    def spawn(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        name: str,
        *,
        on_exit: Callable[[int], None] | None = None,
        grace: float = GRACE_SECONDS,
    ) -> "Child":
        """A child that is started now and restarted whenever it ends, until `Child.stop`."""
        child = Child(self, argv, env, name, on_exit, grace)
        self._children.append(child)
        child.task = self._tasks.start(child.run(), f"child.{name}")
        return child

    def log_path(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def tail(self, name: str, lines: int = TAIL_LINES) -> str:
        return log_tail(self.log_path(name), lines)

    def pids(self) -> tuple[int, ...]:
        """The leaders of all sessions started here, and the watchdog."""
        watchdog = () if self._watchdog.pid is None else (self._watchdog.pid,)
        return (*self._running, *watchdog)

    async def stop(self) -> None:
        """End all children, at the same time, and whatever was launched and not ended yet."""
        await asyncio.gather(*(child.stop() for child in self._children))
        await self._tasks.stop()
        await asyncio.gather(*(self.kill(process, grace=0) for process in list(self._running.values())))
        await self._watchdog.stop()

    def drop(self, child: "Child") -> None:
        if child in self._children:
            self._children.remove(child)

    def _forget(self, process: asyncio.subprocess.Process) -> None:
        self._running.pop(process.pid, None)
        self._watchdog.remove(process.pid)

    def _start_checking(self) -> None:
        if not self._checking:
            self._checking = True
            self._tasks.start(self._check_watchdog(), "children.watchdog")

    async def _check_watchdog(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self._watchdog.check()


class Child:
    """One supervised program: running, or waiting to be started again."""

    def __init__(
        self,
        supervisor: Supervisor,
        argv: Sequence[str],
        env: Mapping[str, str],
        name: str,
        on_exit: Callable[[int], None] | None,
        grace: float,
    ) -> None:
        self.name = name
        self.restarts = 0
        self.process: asyncio.subprocess.Process | None = None
        self.task: asyncio.Task[None] | None = None
        self._supervisor = supervisor
        self._argv, self._env = tuple(argv), dict(env)
        self._on_exit = on_exit
        self._grace = grace

    @property
    def pid(self) -> int | None:
        """None while it is not running."""
        return self.process.pid if self.process and self.process.returncode is None else None

    async def run(self) -> None:
        """Start, wait, start again: only cancelling ends it."""
        clock = asyncio.get_running_loop().time
        backoff = BACKOFF_FIRST
        while True:
            began = clock()
            status = await self._run_once()
            ran = clock() - began
            backoff = BACKOFF_FIRST if ran > STEADY_SECONDS else backoff
            self._report(status, ran, backoff)
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, BACKOFF_MOST)
            self.restarts += 1

    async def stop(self) -> None:
        """End it and do not start it again."""
        self._supervisor.drop(self)
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        if self.process is not None:
            await self._supervisor.kill(self.process, self._grace)

    async def _run_once(self) -> int | None:
        try:
            self.process = await self._supervisor.launch(self._argv, self._env, self.name)
        except ChildError as error:
            log.warning("child.not_started", name=self.name, reason=str(error))
            return None
        log.info("child.started", name=self.name, pid=self.process.pid)
        status = await self.process.wait()
        await self._supervisor.kill(self.process, grace=0)
        return status

    def _report(self, status: int | None, ran: float, backoff: float) -> None:
        if status is None:
            return
        tail = self._supervisor.tail(self.name, 5)
        log.warning("child.exited", name=self.name, status=status, ran=ran, restart_in=backoff, tail=tail)
        if self._on_exit is not None:
            self._on_exit(status)
