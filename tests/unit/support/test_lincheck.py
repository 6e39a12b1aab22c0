"""The checker of histories: known good and bad ones, and its word against trying every order."""

import itertools
import random
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given, settings, strategies as st
from msgspec import structs

from tests.support import lincheck
from tests.support.lincheck import UNKNOWN, Operation, Undecided, check


def read(value: int, called: float, returned: float, key: str = "x") -> Operation:
    return Operation(key, "read", called, returned, value)


def write(value: int, called: float, returned: float, key: str = "x") -> Operation:
    return Operation(key, "write", called, returned, value)


def cas(expected: int, value: int, called: float, returned: float, done: bool | None = True) -> Operation:
    return Operation("x", "cas", called, returned, value, expected, done)


GOOD = {
    "nothing": [],
    "one after another": [write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)],
    "a read beside a write may see either": [write(1, 0, 10), read(0, 1, 2), read(1, 3, 4)],
    "writes at once, in the other order": [write(1, 0, 10), write(2, 0, 10), read(2, 11, 12), read(2, 13, 14)],
    "one compare-and-set of two wins": [cas(0, 1, 0, 9), cas(0, 2, 0, 9, False), read(1, 10, 11)],
    "an unanswered write that took effect late": [write(1, 0, UNKNOWN), read(0, 1, 2), read(1, 5, 6)],
    "an unanswered write that never did": [write(1, 0, UNKNOWN), read(0, 1, 2), read(0, 50, 60)],
    "an unanswered compare-and-set that missed": [cas(3, 4, 0, UNKNOWN, None), read(0, 1, 2), write(3, 3, 4)],
    "keys do not order one another": [write(1, 0, 1, "a"), read(0, 2, 3, "b"), write(1, 4, 5, "b"), read(1, 6, 7, "a")],
}
BAD = {
    "a read of what was never written": [write(1, 0, 1), read(2, 2, 3)],
    "an acknowledged write is lost": [write(1, 0, 1), read(0, 2, 3)],
    "a stale read": [write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)],
    "the value goes back": [write(1, 0, 10), read(1, 1, 2), read(0, 3, 4)],
    "two compare-and-sets of one value win": [cas(0, 1, 0, 9), cas(0, 2, 0, 9)],
    "a compare-and-set misses what was there": [write(1, 0, 1), cas(1, 2, 2, 3, False)],
    "two readers see two orders": [write(1, 0, 10), write(2, 0, 10), read(1, 11, 12), read(2, 13, 14)],
    "an unanswered write happens twice": [write(1, 0, UNKNOWN), read(1, 1, 2), write(2, 3, 4), read(1, 5, 6)],
    "one key of many": [write(1, 0, 1, "a"), read(1, 2, 3, "a"), write(1, 0, 1, "b"), read(0, 2, 3, "b")],
}


@pytest.mark.parametrize("name", GOOD)
def test_accepts(name: str) -> None:
    verdict = check(GOOD[name])
    assert verdict.linearizable
    assert verdict.operations == len(GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_rejects(name: str) -> None:
    verdict = check(BAD[name])
    assert not verdict.linearizable
    assert verdict.key in {operation.key for operation in BAD[name]}
    assert verdict.stuck


def possible(history: Sequence[Operation]) -> bool:
    """By trying every order of every choice of the unanswered ones."""
    unanswered = [op for op in history if op.returned == UNKNOWN]
    answered = [op for op in history if op.returned < UNKNOWN]
    for count in range(len(unanswered) + 1):
        for chosen in itertools.combinations(unanswered, count):
            if any(_runs(order) for order in itertools.permutations([*answered, *chosen])):
                return True
    return False


def _runs(order: Sequence[Operation]) -> bool:
    state = 0
    for place, operation in enumerate(order):
        if any(later.returned < operation.called for later in order[place:]):
            return False
        after = operation.after(state)
        if after is None:
            return False
        state = after
    return True


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    action: Literal["read", "write", "cas"] = draw(st.sampled_from(("read", "write", "cas")))
    called = draw(st.integers(0, 8))
    answered = action == "read" or draw(st.booleans())
    returned = called + draw(st.integers(0, 6)) if answered else UNKNOWN
    value, expected = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    done = None if action == "cas" and not answered else draw(st.booleans())
    return Operation("x", action, called, returned, value, expected, done)


@settings(max_examples=300, deadline=None)
@given(st.lists(operations(), max_size=6))
def test_says_the_same_as_trying_every_order(history: list[Operation]) -> None:
    assert check(history).linearizable == possible(history)


def test_long_histories_of_many_clients_are_quick() -> None:
    """Ten clients, each operation overlapping those of the others; one stale read at the end is found."""
    history, value = [], 0
    for step in range(3000):
        begun = step * 1.0
        history.append(write(step % 7, begun, begun + 9.5) if step % 3 == 0 else read(value % 7, begun, begun + 0.9))
        value = step if step % 3 == 0 else value
    assert check(history).linearizable
    assert not check([*history, read(8, 4000, 4001)]).linearizable


def simulated(seed: int) -> list[Operation]:
    """Six clients and a real register: 300 operations, six of them never answered; half of these happen, up to 20 s
    later."""
    chance, free, planned, left = random.Random(seed), [0.0] * 6, [], 6
    for number in range(300):
        client = free.index(min(free))
        called, took = free[client], chance.uniform(0.01, 0.4) if chance.random() < 0.95 else chance.uniform(1, 5)
        action: Literal["read", "write", "cas"] = chance.choice(("write", "cas", "read", "read"))
        left_open = number % 12 >= 6 and action != "read" and left > 0
        left -= left_open
        at = called + chance.uniform(0, 20 if left_open else took)
        if left_open and chance.random() < 0.5:
            at = UNKNOWN
        returned = UNKNOWN if left_open else called + took
        planned.append((at, Operation("x", action, called, returned, chance.randint(1, 4), chance.randint(0, 4), None)))
        free[client] = called + (0.03 if left_open else took) + chance.uniform(0, 0.1)
    state, history = 0, []
    for at, asked in sorted(planned, key=lambda one: one[0]):
        answered, hit = asked.returned < UNKNOWN, asked.action == "write" or state == asked.expected
        if asked.action == "read":
            history.append(structs.replace(asked, value=state))
            continue
        history.append(structs.replace(asked, done=hit if answered else None))
        state = asked.value if hit and at < UNKNOWN else state
    return history


@pytest.mark.parametrize("seed", range(12))
def test_operations_that_were_never_answered_do_not_blow_up_the_search(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lincheck, "MAX_STEPS", 500_000)
    history = simulated(seed)
    assert sum(op.returned == UNKNOWN for op in history) == 6
    assert check(history).linearizable
    reads = [op for op in history if op.action == "read"]
    wrong = reads[len(reads) * 3 // 4]
    unsound = [structs.replace(op, value=9) if op is wrong else op for op in history]
    assert not check(unsound).linearizable


def test_gives_up_rather_than_searching_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lincheck, "MAX_STEPS", 50)
    with pytest.raises(Undecided, match="too many at once"):
        check([*(write(n, 0, 10) for n in range(12)), read(99, 11, 12)])
