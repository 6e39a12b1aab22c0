"""Who may predict."""

import pytest

from parvada.bearer import Unauthenticated
from serving.auth import allow
from serving.errors import Forbidden
from tests.unit.serving.builders import view_of

VIEW = view_of(tokens=[("v", "viewer"), ("p", "predictor"), ("o", "operator"), ("a", "admin")])


@pytest.mark.parametrize(
    ("mode", "header", "needed", "refused"),
    [
        ("writes", None, "predictor", None),
        ("all", None, "viewer", Unauthenticated),
        ("all", "Bearer unknown", "viewer", Unauthenticated),
        ("all", "Basic p", "viewer", Unauthenticated),
        ("all", "Bearer", "viewer", Unauthenticated),
        ("all", "Bearer v", "viewer", None),
        ("all", "Bearer v", "predictor", Forbidden),
        ("all", "Bearer p", "predictor", None),
        ("all", "bearer p", "predictor", None),
        ("all", "Bearer o", "predictor", None),
        ("all", "Bearer a", "operator", None),
    ],
)
def test_roles(mode: str, header: str | None, needed: str, refused: type[Exception] | None) -> None:
    if refused is None:
        allow(VIEW, mode, header, needed)
        return
    with pytest.raises(refused):
        allow(VIEW, mode, header, needed)
