"""Decides whether a recorded history of concurrent operations is linearizable: the search of Wing and Gong with Lowe's
memory of configurations, a key at a time (a history is linearizable if and only if each key's part of it is)."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec

UNKNOWN: Final = math.inf
"""Return time of an operation whose answer never came: it may take effect at any time after its call, or never."""
MAX_STEPS: Final = 2_000_000


class Undecided(Exception):
    """The search was given up after `MAX_STEPS`: the history has too many operations at once."""


class Operation(msgspec.Struct, frozen=True):
    """What one client did with one register. Times in seconds of one clock that never goes back.

    `write`: sets `value`. `read`: saw `value`. `cas`: sets `value` if the register holds `expected`;
    `done` says whether it did, None that nobody knows.
    """

    key: str
    action: Literal["read", "write", "cas"]
    called: float
    returned: float
    value: int
    expected: int = 0
    done: bool | None = True

    def after(self, state: int) -> int | None:
        """The register's next value if this operation happens now; None if it cannot have happened now."""
        match self.action:
            case "write":
                return self.value
            case "read":
                return state if state == self.value else None
        holds = state == self.expected
        if self.done is not None and self.done != holds:
            return None
        return self.value if holds else state


class Verdict(msgspec.Struct, frozen=True):
    """`stuck`: where the search came to its end: operations of the key that overlap the furthest one with no place."""

    linearizable: bool
    operations: int
    key: str = ""
    stuck: tuple[Operation, ...] = ()


def check(history: Iterable[Operation], initial: int = 0) -> Verdict:
    """The first key that is not linearizable, or that all are. Raises Undecided."""
    keys: dict[str, list[Operation]] = defaultdict(list)
    for operation in history:
        keys[operation.key].append(operation)
    total = sum(map(len, keys.values()))
    for key, operations in sorted(keys.items()):
        # A read that nobody saw says nothing.
        told = [op for op in operations if op.action != "read" or op.returned < UNKNOWN]
        culprit = _Search(told, initial).culprit()
        if culprit is not None:
            near = [op for op in told if op.called <= culprit.returned and culprit.called <= op.returned]
            return Verdict(False, total, key, tuple(sorted(near, key=lambda op: op.called)))
    return Verdict(True, total)


class _Search:
    """Calls and returns in a doubly linked list in order of time; event 2i is the call of operation i, 2i+1 its return.

    An operation is lifted out of the list when it is given its place, and put back when the search goes back.
    """

    def __init__(self, operations: Sequence[Operation], initial: int) -> None:
        self._operations = operations
        self._initial = initial
        events = [(op.called, 0, 2 * i) for i, op in enumerate(operations)]
        # Of equal times the call counts as earlier: such operations overlap.
        events += [(op.returned, 1, 2 * i + 1) for i, op in enumerate(operations) if op.returned < UNKNOWN]
        self._head = 2 * len(operations)
        self._next = [-1] * (self._head + 1)
        self._previous = [-1] * (self._head + 1)
        before = self._head
        for _, _, event in sorted(events):
            self._link(before, event)
            before = event
        self._open = sum(op.returned < UNKNOWN for op in operations)
        """Operations that have returned and still need a place."""

    def culprit(self) -> Operation | None:
        """None if every operation has a place; else the one whose return could not be passed, furthest in time."""
        placed, state, furthest = 0, self._initial, -1.0
        blamed: Operation | None = None
        seen: set[tuple[int, int]] = set()
        trail: list[tuple[int, int]] = []
        event, steps = self._next[self._head], 0
        while self._open:
            steps += 1
            if steps > MAX_STEPS:
                raise Undecided(f"{len(self._operations)} operations of {self._operations[0].key}: too many at once")
            number, is_return = divmod(event, 2)
            operation = self._operations[number]
            if not is_return:
                after = operation.after(state)
                configuration = (placed | 1 << number, after if after is not None else -1)
                if after is not None and configuration not in seen:
                    seen.add(configuration)
                    trail.append((number, state))
                    placed, state = configuration
                    self._lift(number)
                    event = self._next[self._head]
                else:
                    event = self._next[event]
                continue
            if operation.returned > furthest:
                furthest, blamed = operation.returned, operation
            if not trail:
                return blamed
            number, state = trail.pop()
            placed &= ~(1 << number)
            self._put_back(number)
            event = self._next[2 * number]
        return None

    def _link(self, before: int, event: int) -> None:
        self._next[before], self._previous[event] = event, before

    def _returns(self, number: int) -> bool:
        return self._operations[number].returned < UNKNOWN

    def _lift(self, number: int) -> None:
        for event in (2 * number, 2 * number + 1)[: 1 + self._returns(number)]:
            before, after = self._previous[event], self._next[event]
            self._next[before] = after
            if after >= 0:
                self._previous[after] = before
        self._open -= self._returns(number)

    def _put_back(self, number: int) -> None:
        for event in (2 * number + 1, 2 * number) if self._returns(number) else (2 * number,):
            before, after = self._previous[event], self._next[event]
            self._next[before] = event
            if after >= 0:
                self._previous[after] = event
        self._open += self._returns(number)
