"""Which version of a model answers: pure, from the view and the request's own key."""

import hashlib

from parvada.nearest import nearest
from serving.errors import UnknownModel
from serving.view import Arm, ModelView, ServingView, VersionView

PRODUCTION = "production"


def model(view: ServingView, name: str) -> ModelView:
    """The model of that name. Raises `UnknownModel`, which suggests the nearest name."""
    found = view.find(name)
    if found is None:
        near = nearest(name, [m.name for m in view.models])
        hint = f"; did you mean {near!r}?" if near is not None else ""
        raise UnknownModel(f"There is no model {name!r}{hint}", model=name, nearest=[] if near is None else [near])
    return found


def choose(found: ModelView, version: int | None = None, key: str = "") -> VersionView:
    """The version asked for; else the arm of the traffic split that `key` falls into; else what the
    `production` alias names; else the newest. The same key falls into the same arm on every node.
    Raises `UnknownModel` if there is no such version."""
    number = version if version is not None else _default(found, key)
    chosen = found.find(number)
    if chosen is None:
        have = [v.version for v in found.versions]
        message = f"Model {found.name!r} has no version {number}; it has {have}"
        raise UnknownModel(message, model=found.name, versions=have)
    return chosen


def route(view: ServingView, name: str, version: int | None = None, key: str = "") -> VersionView:
    """`choose` in the model named. Raises `UnknownModel`."""
    return choose(model(view, name), version, key)


def _default(found: ModelView, key: str) -> int:
    arms = tuple(arm for arm in found.traffic if arm.weight > 0 and found.find(arm.version) is not None)
    if arms:
        return _arm(arms, f"{found.name}\0{key}")
    alias = found.aliases.get(PRODUCTION)
    if alias is not None and found.find(alias) is not None:
        return alias
    return max((v.version for v in found.versions), default=found.latest)


def _arm(arms: tuple[Arm, ...], key: str) -> int:
    """Deterministic and, over many keys, in proportion to the weights. A key is a header: any bytes may be in it."""
    point = int.from_bytes(hashlib.sha256(key.encode(errors="surrogateescape")).digest()[:8], "big") % sum(
        arm.weight for arm in arms
    )
    for arm in arms:
        if point < arm.weight:
            return arm.version
        point -= arm.weight
    raise AssertionError("unreachable: the point lies below the sum of the weights")
