"""The agent's end of `node.processes.deathwatch`: keeps one running and tells it which sessions die with the agent."""

import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
from pathlib import Path

from node import logs
from node.processes import deathwatch

log = logs.get("node.processes.watchdog")

SCRIPT = Path(deathwatch.__file__)


class Watchdog:
    """Registers sessions; starts the watching process before the first one, and anew when it is found dead. What
    carries `mark` in its environment is found, too, so that nothing is missed of which it was not told in time."""

    def __init__(self) -> None:
        self.mark = {deathwatch.MARK: secrets.token_hex(16)}
        self._process: subprocess.Popen[bytes] | None = None
        self._sessions: dict[int, int] = {}

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def prepare(self) -> None:
        """Before a process is started with the mark."""
        if self._process is None:
            self._restart()

    def add(self, sid: int) -> None:
        """From here on the session of this pid does not outlive the agent."""
        self._sessions[sid] = deathwatch.started_at(sid)
        self._tell(f"+{sid} {self._sessions[sid]}")

    def ours(self, sid: int) -> list[int]:
        """`[sid]` if that session is still the registered one, else nothing."""
        return deathwatch.still_ours({sid: self._sessions[sid]}) if sid in self._sessions else []

    def remove(self, sid: int) -> None:
        if self._sessions.pop(sid, None) is not None:
            self._tell(f"-{sid}")

    def check(self) -> None:
        """Start a new watching process if the present one has died."""
        if self._process is not None and self._process.poll() is not None and self._sessions:
            log.warning("watchdog.died", status=self._process.returncode)
            self._restart()

    async def stop(self) -> None:
        """Close the pipe: what is still registered is killed. Returns when the watching process is gone."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        await asyncio.to_thread(process.wait, deathwatch.SWEEP_SECONDS * 2)

    def _tell(self, line: str) -> None:
        if self._process is None or not self._write(self._process, line):
            self._restart()

    def _restart(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.poll()
        # -I -S: no site-packages, nothing of the environment. A session of its own: no Ctrl-C, no killpg reaches it.
        # Nor has it the mark of whoever started this process: it must not end before it has ended its own.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(SCRIPT), self.mark[deathwatch.MARK]],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != deathwatch.MARK},
        )
        for sid, started in self._sessions.items():
            self._write(self._process, f"+{sid} {started}")

    def _write(self, process: "subprocess.Popen[bytes]", line: str) -> bool:
        if process.stdin is None or process.poll() is not None:
            return False
        try:
            process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            return False
        return True
