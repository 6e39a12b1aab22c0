"""Who may run where: the CPUs of nodes that tasks wait for, take, and give back."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping


class Places:
    """What each node offers may change at any time; what is taken stays taken until it is given back."""

    def __init__(self) -> None:
        self._offered: dict[str, int] = {}
        self._taken: Counter[str] = Counter()
        self._waiting: deque[tuple[int, asyncio.Future[str]]] = deque()

    @property
    def total(self) -> int:
        return sum(self._offered.values())

    def offer(self, cpus: Mapping[str, int]) -> None:
        """From now on these nodes, with so many CPUs each, and no others."""
        self._offered = dict(cpus)
        self._serve()

    @contextlib.asynccontextmanager
    async def taken(self, cpus: int) -> AsyncIterator[str]:
        """Wait, first come first served, for the node that is least busy; its CPUs are ours until the end."""
        turn: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((cpus, turn))
        self._serve()
        try:
            yield await turn
        finally:
            # Also when the caller was cancelled just after its turn had come.
            if not turn.cancelled():
                self._taken[turn.result()] -= cpus
            self._serve()

    def _serve(self) -> None:
        while self._waiting:
            cpus, turn = self._waiting[0]
            if not turn.done():
                node = self._least_busy(cpus)
                if node is None:
                    return
                self._taken[node] += cpus
                turn.set_result(node)
            self._waiting.popleft()

    def _least_busy(self, cpus: int) -> str | None:
        """A node on which nothing runs takes any task: one that wants more than any node has must not wait for ever."""
        free = [
            (self._taken[node] / offered, node)
            for node, offered in self._offered.items()
            if offered and (self._taken[node] == 0 or self._taken[node] + cpus <= offered)
        ]
        return min(free, default=(0.0, None))[1]
