"""The bound on the memory of all bodies together."""

import pytest

from serving.bodies import SMALL_BYTES, BodyBudget
from serving.errors import Overloaded


def test_bodies_count_as_they_arrive_and_until_they_are_answered() -> None:
    budget = BodyBudget(1_000_000)
    with budget.hold() as first:
        for _ in range(10):
            first.grow(60_000)
        assert budget.used == 600_000 - SMALL_BYTES
        with pytest.raises(Overloaded), budget.hold() as second:
            second.grow(600_000)
        assert budget.used == 600_000 - SMALL_BYTES, "a refused body gives back what it had"
        with budget.hold() as third:
            third.grow(SMALL_BYTES)
    assert budget.used == 0


def test_small_bodies_pass_when_large_ones_have_taken_all() -> None:
    budget = BodyBudget(100_000)
    with budget.hold() as large, budget.hold() as small:
        large.grow(100_000 + SMALL_BYTES)
        small.grow(SMALL_BYTES)
        with pytest.raises(Overloaded):
            small.grow(1)
