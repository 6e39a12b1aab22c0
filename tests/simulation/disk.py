"""A `consensus.core.disk.Disk` in memory that can lose power, die in the middle of an operation, be full, and rot."""

import random
from collections import defaultdict


class Crash(Exception):
    """The process died in the middle of a disk operation."""


class SimDisk:
    """A `Disk` in memory that knows what was synced. `crash_after` counts operations until it raises `Crash`."""

    def __init__(self, rng: random.Random | None = None) -> None:
        self.files: dict[str, bytearray] = {}
        self.durable: dict[str, bytes] = {}
        self.unsynced: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
        self.crash_after: int | None = None
        self.full: OSError | None = None
        self.syncs = 0
        """How many syncs there were: each may be slow."""
        self._last_synced: dict[str, int] = {}
        self._rng = rng or random.Random(0)

    def _operation(self) -> None:
        if self.crash_after is not None:
            if self.crash_after == 0:
                raise Crash
            self.crash_after -= 1

    def _space(self) -> None:
        if self.full is not None:
            raise self.full

    def read(self, name: str) -> bytes | None:
        return bytes(self.files[name]) if name in self.files else None

    def write_at(self, name: str, offset: int, data: bytes) -> None:
        self._operation()
        self._space()
        content = self.files[name]
        content[offset : offset + len(data)] = data
        self.unsynced[name].append((offset, bytes(data)))

    def sync(self, name: str) -> None:
        self._operation()
        self.syncs += 1
        if self.unsynced[name]:
            self._last_synced[name] = self.unsynced[name][-1][0]
        self.durable[name] = bytes(self.files[name])
        self.unsynced[name].clear()

    def truncate(self, name: str, size: int) -> None:
        self._operation()
        del self.files[name][size:]
        self.durable[name] = self.durable.get(name, b"")[:size]
        self.unsynced[name].clear()

    def prepare(self, temporary: str, data: bytes) -> None:
        self._operation()
        self._space()
        self.files[temporary] = bytearray(data)
        self.durable[temporary] = data

    def commit(self, temporary: str, name: str) -> None:
        self._operation()
        self.files[name] = self.files.pop(temporary)
        self.durable[name] = self.durable.pop(temporary)
        self.unsynced[name].clear()
        self._last_synced.pop(name, None)

    def discard(self, name: str) -> None:
        self.files.pop(name, None)
        self.durable.pop(name, None)

    def close(self) -> None:
        pass

    def power_loss(self) -> None:
        """Back to what was synced, plus some of the later writes in order, the last one perhaps torn."""
        survivors = {}
        for name, durable in self.durable.items():
            content, writes = bytearray(durable), self.unsynced[name]
            kept = self._rng.randint(0, len(writes))
            for number, (offset, data) in enumerate(writes[:kept], 1):
                torn = number == kept and self._rng.random() < 0.5
                part = data[: self._rng.randint(0, len(data))] if torn else data
                content[offset : offset + len(part)] = part
            survivors[name] = content
        self.files = survivors
        self.durable = {name: bytes(content) for name, content in survivors.items()}
        self.unsynced.clear()

    def rot(self, name: str) -> int:
        """Flip one bit of a file that was synced, and say where. What the last sync wrote is left alone: damage
        there cannot be told from a write that a power loss has torn."""
        content = self.files[name]
        position = self._rng.randrange(self._last_synced.get(name, len(content)))
        content[position] ^= 1 << self._rng.randrange(8)
        return position
