"""Decides whether a recorded history of concurrent operations is linearizable: the search of Wing and Gong with Lowe's
memory of configurations, a key at a time (a history is linearizable if and only if each key's part of it is)."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
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

    @property
    def idle(self) -> bool:
        """Changes nothing, whenever it happens."""
        return self.action == "read" or (self.action == "cas" and self.done is False)


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
    """Calls and returns of the answered operations in a doubly linked list in order of time; event 2i is the call of
    operation i, 2i+1 its return.

    An operation is lifted out of the list when it is given its place, and put back when the search goes back. Three
    things keep the search short, also with operations that were never answered:
    * what has no effect (a read, a compare-and-set that missed) takes its place as soon as it fits;
    * an unanswered operation is tried only after the answered ones;
    * of two ways to the same state with the same answered operations placed, the one that used up fewer unanswered ones
      can do all that the other can.
    """

    def __init__(self, operations: Sequence[Operation], initial: int) -> None:
        self._operations = operations
        self._initial = initial
        self._unanswered = sorted(
            (i for i, op in enumerate(operations) if op.returned == UNKNOWN), key=lambda i: operations[i].called
        )
        answered = [i for i, op in enumerate(operations) if op.returned < UNKNOWN]
        # Of equal times the call counts as earlier: such operations overlap.
        events = [(operations[i].called, 0, 2 * i) for i in answered]
        events += [(operations[i].returned, 1, 2 * i + 1) for i in answered]
        self._head = 2 * len(operations)
        self._next = [-1] * (self._head + 1)
        self._previous = [-1] * (self._head + 1)
        before = self._head
        for _, _, event in sorted(events):
            self._next[before], self._previous[event] = event, before
            before = event
        self._open = len(answered)
        """Operations that have returned and still need a place."""

    def culprit(self) -> Operation | None:
        """None if every operation has a place; else the one whose return could not be passed, furthest in time."""
        placed, used, state = 0, 0, self._initial
        blamed: Operation | None = None
        fewest: dict[tuple[int, int], list[int]] = {(placed, state): [used]}
        trail: list[tuple[int, int, int, int, Iterator[int]]] = []
        candidates, steps = self._candidates(used), 0
        while self._open:
            steps += 1
            if steps > MAX_STEPS:
                raise Undecided(f"{len(self._operations)} operations of {self._operations[0].key}: too many at once")
            number = next(candidates, -1)
            if number < 0:
                passed_not = self._operations[self._first_return()]
                if blamed is None or passed_not.returned > blamed.returned:
                    blamed = passed_not
                if not trail:
                    return blamed
                number, placed, used, state, candidates = trail.pop()
                self._put_back(number)
                continue
            operation, answered = self._operations[number], self._answered(number)
            after = operation.after(state)
            if after is None:
                continue
            then = (placed | 1 << number, used) if answered else (placed, used | 1 << number)
            if not _is_new(fewest.setdefault((then[0], after), []), then[1]):
                continue
            trail.append((number, placed, used, state, iter(()) if operation.idle else candidates))
            (placed, used), state = then, after
            self._lift(number)
            candidates = self._candidates(used)
        return None

    def _candidates(self, used: int) -> Iterator[int]:
        """What may come next: all that was called before the first return. Goes on where it was when the list is again
        as it was."""
        event = self._next[self._head]
        while not event & 1:
            yield event // 2
            event = self._next[event]
        returned = self._operations[event // 2].returned
        for number in self._unanswered:
            if self._operations[number].called > returned:
                return
            if not used >> number & 1:
                yield number

    def _first_return(self) -> int:
        event = self._next[self._head]
        while not event & 1:
            event = self._next[event]
        return event // 2

    def _answered(self, number: int) -> bool:
        return self._operations[number].returned < UNKNOWN

    def _lift(self, number: int) -> None:
        if not self._answered(number):
            return
        for event in (2 * number, 2 * number + 1):
            before, after = self._previous[event], self._next[event]
            self._next[before] = after
            if after >= 0:
                self._previous[after] = before
        self._open -= 1

    def _put_back(self, number: int) -> None:
        if not self._answered(number):
            return
        for event in (2 * number + 1, 2 * number):
            before, after = self._previous[event], self._next[event]
            self._next[before] = event
            if after >= 0:
                self._previous[after] = event
        self._open += 1


def _is_new(fewest: list[int], used: int) -> bool:
    """Whether no known way here used up a part of these unanswered operations only; then it is noted."""
    if any(other & used == other for other in fewest):
        return False
    fewest[:] = [other for other in fewest if other & used != used]
    fewest.append(used)
    return True
