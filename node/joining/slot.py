"""Claims this node's own folder in the data folder that all nodes of a host share, and the genesis file beside it.

A slot is a folder `slots/K` guarded by `flock`: the kernel frees it when its process dies, however it dies.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from node import logs
from node.files import create_exclusively
from node.joining.docker_dns import replica_number

log = logs.get("node.joining.slot")

WAIT_SECONDS = 5.0
"""How long to wait for a slot that is ours by number: its last process may be still on its way out."""
POLL_SECONDS = 0.1
MAX_SLOTS = 1000
MAX_SOCKET_PATH = 100
"""Bytes; Linux allows 107 for the path of a Unix socket."""
SOCKET_NAME = "agent.sock"


class SlotError(RuntimeError):
    """No slot could be had, or a file in the data folder is not what it must be; the message says which."""


class Slot:
    """A claimed slot. It stays claimed until `release`, or until the process ends."""

    def __init__(self, path: Path, number: int, lock: int) -> None:
        self.path = path
        self.number = number
        self._lock = lock

    def release(self) -> None:
        """Let another process have it. Calling it again does nothing."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def claim(
    data: Path,
    slot: int | None,
    *,
    wait: float = WAIT_SECONDS,
    replica: Callable[[], int | None] = replica_number,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Slot:
    """Claim the slot with this number; without one, the slot of this container's replica number, so that a replaced
    container is the same node again; failing that, the first free slot. Blocks for `wait` seconds and the DNS query.

    Raises:
        SlotError: the slot asked for stays taken, or none is free.
    """
    number = slot if slot is not None else replica()
    if number is not None:
        if not 1 <= number <= 9999:
            raise SlotError(f"slot {number}: a slot's number is from 1 to 9999")
        if (claimed := _claim_within(data, number, wait, clock, sleep)) is not None:
            return claimed
        if slot is not None:
            raise SlotError(
                f"slot {number} in {data} is in use ({_holder(data, number)}): stop that node, or give another"
            )
        log.warning("slot.taken", slot=number, holder=_holder(data, number), waited=wait)
    return _claim_first_free(data)


def run_dir(slot: Slot) -> Path:
    """The folder for sockets and pid files, made if need be (mode 0700): in the slot, or, where the path is too long
    for a Unix socket, a short one in the system's temporary folder, named by the slot's path.

    Raises SlotError if that name is taken by somebody else.
    """
    inside = slot.path / "run"
    if len(os.fsencode(inside / SOCKET_NAME)) <= MAX_SOCKET_PATH:
        inside.mkdir(mode=0o700, exist_ok=True)
        return inside
    name = hashlib.sha256(os.fsencode(slot.path.resolve())).hexdigest()[:16]
    outside = Path(tempfile.gettempdir()) / f"parvada-{name}"
    outside.mkdir(mode=0o700, exist_ok=True)
    # Others may write to the temporary folder: a folder or link that was laid there before us is not ours.
    found = outside.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise SlotError(f"{outside} is not a private folder of this user: remove it, or set TMPDIR")
    return outside


class GenesisRecord(msgspec.Struct, frozen=True):
    """Which node forms the cluster, and what it calls it. Written once in the life of a data folder."""

    cluster_id: str
    node_id: str
    name: str


def claim_genesis(data: Path, record: GenesisRecord) -> GenesisRecord:
    """Try to be the one that forms: the record that holds from now on, `record` or that of the node that was first.

    Durable when it returns. Raises SlotError if the file is damaged.
    """
    # Named by the node, so that what a crash leaves behind is overwritten by the next try.
    temporary = data / f".genesis.{record.node_id}.tmp"
    try:
        create_exclusively(data / "genesis", msgspec.json.encode(record), temporary)
    except FileExistsError:
        winner = read_genesis(data)
        if winner is None:
            raise SlotError(f"{data / 'genesis'} vanished while it was read") from None
        return winner
    return record


def read_genesis(data: Path) -> GenesisRecord | None:
    """The record in the data folder, None if nobody has claimed it yet. Raises SlotError if it is damaged."""
    path = data / "genesis"
    try:
        return msgspec.json.decode(path.read_bytes(), type=GenesisRecord)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise SlotError(f"{path} is damaged ({error}): restore it; a new one would form a second cluster") from error


def _claim_within(
    data: Path, number: int, wait: float, clock: Callable[[], float], sleep: Callable[[float], None]
) -> Slot | None:
    deadline = clock() + wait
    while (claimed := _try_claim(data, number)) is None and clock() < deadline:
        sleep(POLL_SECONDS)
    return claimed


def _claim_first_free(data: Path) -> Slot:
    for number in range(1, MAX_SLOTS + 1):
        if (claimed := _try_claim(data, number)) is not None:
            return claimed
    raise SlotError(f"all of the first {MAX_SLOTS} slots in {data} are in use")


def _try_claim(data: Path, number: int) -> Slot | None:
    folder = data / "slots" / str(number)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        # Python opens it close-on-exec: a child that outlives the agent does not keep the slot.
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SlotError(f"the lock {folder / '.lock'} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    # For messages only, so a full disk does not keep the node from starting.
    with contextlib.suppress(OSError):
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return Slot(folder, number, lock)


def _holder(data: Path, number: int) -> str:
    """For messages only: in another container the process has another number."""
    pid = (data / "slots" / str(number) / ".lock").read_text().strip()
    return f"by process {pid}" if pid else "by an unknown process"
