"""How much memory the processes of one node really take, sampled while something else goes on."""

import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import psutil

_ROLLUP = re.compile(r"^(Pss|Pss_Anon|Pss_Shmem):\s+(\d+) kB$", re.MULTILINE)


def own_bytes(pid: int) -> int:
    """Memory that a process and its descendants have for themselves: anonymous and shared-memory pages, those of
    several processes divided among them. What is mapped from files, libraries among it, is page cache: the kernel
    takes it back when memory runs short, and one file counts for all processes that read it."""
    return sum(_own(member) for member in _family(pid))


def _family(pid: int) -> list[int]:
    try:
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _own(pid: int) -> int:
    try:
        found = dict(_ROLLUP.findall(Path(f"/proc/{pid}/smaps_rollup").read_text()))
    except OSError:  # it has ended
        return 0
    return (int(found.get("Pss_Anon", 0)) + int(found.get("Pss_Shmem", 0))) * 1024


class Watch:
    """`with Watch({"node-1": pid}) as watch:` notes the largest `own_bytes` of each family of processes."""

    def __init__(self, pids: Mapping[str, int], every: float = 0.2) -> None:
        self._pids, self._every = dict(pids), every
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)
        self.idle = {name: own_bytes(pid) for name, pid in pids.items()}
        """Before."""
        self.most = dict(self.idle)
        self.samples = 0

    def beyond(self, name: str) -> int:
        """Bytes above what it had before."""
        return self.most[name] - self.idle[name]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            for name, pid in self._pids.items():
                self.most[name] = max(self.most[name], own_bytes(pid))
            self.samples += 1


def settled(pids: Mapping[str, int], timeout: float = 30.0, calm: float = 3.0) -> None:
    """Wait until nothing has grown by more than a megabyte for `calm` seconds: starting is over."""
    deadline, since = time.monotonic() + timeout, time.monotonic()
    seen = {name: own_bytes(pid) for name, pid in pids.items()}
    while time.monotonic() - since < calm and time.monotonic() < deadline:
        time.sleep(0.3)
        for name, pid in pids.items():
            now = own_bytes(pid)
            if abs(now - seen[name]) > 1 << 20:
                since, seen[name] = time.monotonic(), now
