"""Which version answers."""

import pytest
from hypothesis import given, strategies as st

from serving import router
from serving.errors import UnknownModel
from serving.view import Arm, ModelView
from tests.unit.serving.builders import model_of, version_of, view_of

V1, V2, V4 = (version_of(number=n) for n in (1, 2, 4))


@pytest.mark.parametrize(
    ("model", "asked", "answers"),
    [
        (model_of(V1, V2), None, 2),
        (model_of(V2, V1), None, 2),
        (model_of(V1, V2, aliases={"production": 1}), None, 1),
        (model_of(V1, V2, aliases={"staging": 1}), None, 2),
        (model_of(V1, V2, aliases={"production": 1}), 2, 2),
        (model_of(V1, V4, aliases={"production": 3}), None, 4),
    ],
)
def test_version_asked_for_else_production_else_newest(model: ModelView, asked: int | None, answers: int) -> None:
    assert router.route(view_of(model), "iris", asked).version == answers


def test_unknown_names_are_refused_with_what_there_is() -> None:
    view = view_of(model_of(V1, V2))
    with pytest.raises(UnknownModel, match="did you mean 'iris'"):
        router.route(view, "irs")
    with pytest.raises(UnknownModel, match=r"no version 3; it has \[1, 2\]"):
        router.route(view, "iris", 3)
    with pytest.raises(UnknownModel):
        router.route(view_of(model_of()), "iris")


@given(st.text(), st.integers(1, 9), st.integers(1, 9))
def test_the_same_key_takes_the_same_arm_whatever_node(key: str, first: int, second: int) -> None:
    model = model_of(V1, V2, aliases={"production": 4}, traffic=(Arm(1, first), Arm(2, second)))
    chosen = router.choose(model, key=key)
    assert chosen.version in (1, 2)
    assert router.choose(model, key=key) == chosen


def test_arms_are_taken_in_proportion_to_their_weights() -> None:
    model = model_of(V1, V2, traffic=(Arm(1, 90), Arm(2, 10)))
    taken = [router.choose(model, key=str(n)).version for n in range(5000)]
    assert 0.08 < taken.count(2) / len(taken) < 0.12


def test_a_key_of_any_bytes_takes_an_arm() -> None:
    """Headers come as they were sent; what is no UTF-8 is kept as surrogates."""
    split = model_of(V1, V2, traffic=(Arm(1, 1), Arm(2, 1)))
    assert router.choose(split, key=b"\xff\xfe".decode(errors="surrogateescape")).version in (1, 2)
