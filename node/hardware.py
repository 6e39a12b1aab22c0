"""What this node may use of its machine: cores by affinity and quota, memory by its limit, and which other nodes have
the very same cores.

Two nodes have the same cores when they run on one kernel (its boot id tells), in one cpuset and, where a quota bounds
them, in one group of processes (cgroup v1 or v2). They share them by agreement: `consensus.shares`.
"""

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

ROOT = Path("/")
BOOT_ID = "proc/sys/kernel/random/boot_id"
NAME_CHARACTERS = 16


class Machine(msgspec.Struct, frozen=True):
    """What this node may use, if it were alone there."""

    cores: int
    """Those that were found, or as many as its operator gave it."""
    memory_bytes: int
    memory_is_own: bool
    """A limit of its own bounds it: no other node takes of it."""
    given: bool = False
    """Whether `cores` is the operator's word."""
    key: str = ""
    """The same for all processes that have the same cores; empty where the kernel does not say which it is."""

    def name(self, cluster_id: str) -> str:
        """What the members of one cluster know this machine by: a digest that says nothing else, to nobody else."""
        text = f"{cluster_id}/{self.key}".encode()
        return hashlib.sha256(text).hexdigest()[:NAME_CHARACTERS] if self.key else ""


def read_machine(given: int = 0, root: Path = ROOT, allowed: Collection[int] | None = None) -> Machine:
    """`given`: how many cores the operator said, 0 for none. `allowed`: numbers of those that this process may run on,
    by default what the kernel says, which knows cpusets."""
    allowed = sorted(os.sched_getaffinity(0) if allowed is None else allowed)
    memory, is_own = memory_limit(root)
    boot = _text(root / BOOT_ID)
    parts = [boot, ",".join(map(str, allowed))]
    count = len(allowed)
    quota, group = min(_quotas(root), default=(float(count), root), key=lambda found: found[0])
    if quota < count:
        where = group.stat()
        parts.append(f"{where.st_dev}:{where.st_ino}")
        count = max(1, int(quota))
    return Machine(given or count, memory, is_own, given > 0, " ".join(parts) if boot else "")


def memory_limit(root: Path = ROOT) -> tuple[int, bool]:
    """Bytes that this process's group may use, or that the machine has; and whether it is the former."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    texts = (_text(group / "memory.max") or _text(group / "memory.limit_in_bytes") for group in _groups(root, "memory"))
    limit = min((int(text) for text in texts if text.isdigit()), default=machine)
    return (limit, True) if limit < machine else (machine, False)


def quota_of(text: str) -> float | None:
    """Cores, from `cpu.max` ("150000 100000"); None for no quota ("max 100000", and "-1 100000" in version 1)."""
    quota, _, period = text.partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.strip().isdigit() else None


def _quotas(root: Path) -> Iterator[tuple[float, Path]]:
    """With the group that each is of: those of the groups above bind as well."""
    for group in _groups(root, "cpu"):
        first = f"{_text(group / 'cpu.cfs_quota_us')} {_text(group / 'cpu.cfs_period_us')}"
        quota = quota_of(_text(group / "cpu.max") or first)
        if quota is not None:
            yield quota, group


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """This process's group and those above it, as far as they can be seen: of a container, its own."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / (controller if controllers else "")
        parts = [part for part in path.split("/") if part]
        if ".." in parts:  # a group beside the one that is seen as the topmost
            parts = []
        for length in range(len(parts), -1, -1):
            folder = top.joinpath(*parts[:length])
            if folder.is_dir():
                yield folder


def _text(path: Path) -> str:
    """Empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
