"""Figures of this machine or container, read from /proc and cgroup v2. A full reading costs well under a millisecond,
but for the memory of the processes, which costs about a tenth of one for each process."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

import msgspec

from node.hardware import quota_of

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")
"""In a container with its own cgroup namespace, its own group; `cpu.max` is only there in such a group."""


class Sample(msgspec.Struct, frozen=True):
    """One reading. `cpu_percent` (0 to 100, of all cores it may use) is over the time since the reading before."""

    cpu_percent: float = 0.0
    memory_bytes: int = 0
    """Proportional set size of the node's processes: shared pages are counted once among them."""
    memory_total_bytes: int = 0
    disk_free_bytes: int = 0
    load: tuple[float, float, float] = (0.0, 0.0, 0.0)


class CpuTimes(msgspec.Struct, frozen=True):
    """Seconds: used, and available over the same time if all cores had been busy."""

    used: float
    available: float


class CpuMeter:
    """CPU use between two calls of `percent`."""

    def __init__(self, cgroup: Path = CGROUP, proc: Path = PROC) -> None:
        self._cgroup = cgroup if (cgroup / "cpu.max").exists() else None
        self._proc = proc
        self._last = self._read()

    def percent(self) -> float:
        """0 to 100 since the call before; 0 when no time has passed."""
        before, self._last = self._last, self._read()
        available = self._last.available - before.available
        if available <= 0:
            return 0.0
        return round(min(100.0, max(0.0, 100 * (self._last.used - before.used) / available)), 1)

    def _read(self) -> CpuTimes:
        if self._cgroup is None:
            return machine_cpu((self._proc / "stat").read_text())
        uptime = float((self._proc / "uptime").read_text().split()[0])
        cores = cgroup_cores((self._cgroup / "cpu.max").read_text())
        return CpuTimes(cgroup_used((self._cgroup / "cpu.stat").read_text()), uptime * cores)


def machine_cpu(stat: str) -> CpuTimes:
    """From /proc/stat: user nice system idle iowait irq softirq steal; guest time is within user time."""
    ticks = [int(word) for word in stat.splitlines()[0].split()[1:9]]
    per_second = os.sysconf("SC_CLK_TCK")
    idle = ticks[3] + ticks[4]
    return CpuTimes((sum(ticks) - idle) / per_second, sum(ticks) / per_second)


def cgroup_used(stat: str) -> float:
    """Seconds, from `cpu.stat`."""
    found = dict(line.split() for line in stat.splitlines())
    return int(found["usage_usec"]) / 1e6


def cgroup_cores(limit: str) -> float:
    """Cores that a group may use, from `cpu.max`."""
    cores = float(os.cpu_count() or 1)
    return min(cores, quota_of(limit) or cores)


def memory_of(pids: Iterable[int]) -> int:
    """Proportional set size in bytes; processes that are gone meanwhile count nothing."""
    return sum(_pss(pid) for pid in pids)


def disk_free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _pss(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return 0
