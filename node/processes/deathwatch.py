"""A process of its own that outlives a killed agent by a moment: it ends everything the agent had started.

It reads lines from a pipe that only the agent holds open: `+SID STARTTIME` and `-SID`. When the pipe closes, whatever
the reason, every process of the sessions still registered gets SIGKILL, and every session of a process that carries
the agent's mark in its environment: one that the agent had started and not registered yet. Sessions, not process
groups: Ray gives its workers groups of their own, but nothing leaves its session. PR_SET_PDEATHSIG would not do: it is
forgotten by every fork, so it takes `ray start` and leaves the raylet. Imports nothing of ours and runs as a plain
file, to stay small.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterable

SWEEP_SECONDS = 5.0
MARK = "STARTED_BY_PARVADA"
"""Environment variable of everything that an agent starts: a random text of that agent's own. No setting: those begin
with PARVADA_, and unknown ones are refused."""
_SESSION, _STARTED = 3, 19
"""Fields of /proc/PID/stat, counted after the command's closing parenthesis (proc(5): 6 and 22)."""


def stat_fields(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat after the command, None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  pathlib would triple this process's imports
            return file.read().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def started_at(pid: int) -> int:
    """When the process started, in clock ticks since boot; 0 if there is none. Tells a reused pid."""
    fields = stat_fields(pid)
    return int(fields[_STARTED]) if fields else 0


def session_members(sessions: Iterable[int]) -> list[int]:
    """Pids of all living (not zombie) processes in these sessions."""
    wanted = {str(sid) for sid in sessions}
    found = []
    for entry in os.listdir("/proc"):  # noqa: PTH208  see above
        fields = stat_fields(int(entry)) if entry.isdigit() else None
        if fields and fields[_SESSION] in wanted and fields[0] not in "ZX":
            found.append(int(entry))
    return found


def kill_sessions(sessions: Iterable[int], seconds: float = SWEEP_SECONDS) -> list[int]:
    """SIGKILL until nobody is left (a process may fork between scan and kill). Returns who is left at the deadline."""
    sids = frozenset(sessions)
    deadline = time.monotonic() + seconds
    while sids and (members := session_members(sids)):
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return members
        time.sleep(0.01)
    return []


def marked_sessions(mark: str) -> list[int]:
    """Sessions of the processes that were started with this mark in their environment."""
    wanted, found = f"{MARK}={mark}".encode(), set()
    for entry in os.listdir("/proc"):  # noqa: PTH208  see above
        if not entry.isdigit():
            continue
        # Another user's cannot be read, nor that of a process that has just gone.
        with contextlib.suppress(OSError), open(f"/proc/{entry}/environ", "rb") as file:  # noqa: PTH123
            if wanted in file.read().split(b"\0") and (fields := stat_fields(int(entry))):
                found.add(int(fields[_SESSION]))
    return sorted(found)


def still_ours(registered: dict[int, int]) -> list[int]:
    """Sessions whose leader is the one registered, or gone: a pid is not reused while it names a session."""
    return [sid for sid, start in registered.items() if started_at(sid) in (0, start)]


def watch(pipe: Iterable[str]) -> dict[int, int]:
    """Follow registrations until the pipe closes; what is left is what the agent left behind."""
    registered: dict[int, int] = {}
    for line in pipe:
        sid, _, start = line[1:].strip().partition(" ")
        if line.startswith("+"):
            registered[int(sid)] = int(start)
        else:
            registered.pop(int(sid), None)
    return registered


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the closing pipe ends it
    kill_sessions(still_ours(watch(sys.stdin)))
    kill_sessions(marked_sessions(sys.argv[1]))


if __name__ == "__main__":
    main()
