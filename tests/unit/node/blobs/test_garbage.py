"""A blob goes when, and only when, it was needless and untouched for the whole grace."""

from hypothesis import given, strategies as st

from consensus.state import Digest
from node.blobs.garbage import Garbage

GRACE = 10.0
BLOBS = [Digest(name * 64) for name in "abc"]
SETS = st.sets(st.sampled_from(BLOBS))


class Model:
    """What the rule says, by the whole history instead of one time a blob."""

    def __init__(self) -> None:
        self.history: list[tuple[float, set[Digest], set[Digest]]] = []

    def may_go(self, blob: Digest) -> bool:
        now = self.history[-1][0]
        calm: float | None = None
        for at, needless, touched in self.history:
            if blob not in needless:
                calm = None
            elif blob in touched or calm is None:
                calm = at
        return calm is not None and now - calm >= GRACE


@given(st.lists(st.tuples(st.floats(0, 8), SETS, SETS), max_size=40))
def test_the_rule_by_its_history(rounds: list[tuple[float, set[Digest], set[Digest]]]) -> None:
    garbage, model, now = Garbage(GRACE), Model(), 0.0
    for pause, needless, touched in rounds:
        now += pause
        model.history.append((now, needless, touched))
        assert garbage.due(needless, touched, now) == {blob for blob in BLOBS if model.may_go(blob)}


def test_what_is_needed_again_begins_anew() -> None:
    garbage = Garbage(GRACE)
    garbage.due({BLOBS[0]}, set(), 0.0)
    garbage.due(set(), set(), 9.0)
    assert garbage.due({BLOBS[0]}, set(), 11.0) == set()
    assert garbage.due({BLOBS[0]}, set(), 21.0) == {BLOBS[0]}


def test_forgetting_begins_anew() -> None:
    garbage = Garbage(GRACE)
    garbage.due({BLOBS[0]}, set(), 0.0)
    garbage.forget()
    assert garbage.due({BLOBS[0]}, set(), 11.0) == set()
