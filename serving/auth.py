"""Who may call what: bearer tokens by their hash, roles in order, and what is open without a token."""

import hashlib
from typing import Final

from serving.errors import Forbidden, Unauthenticated
from serving.view import ServingView

ROLES: Final = ("viewer", "predictor", "operator", "admin")
"""Each includes those before it."""


def bearer(header: str | None) -> str | None:
    """The token in an `Authorization` header. Raises `Unauthenticated` for another scheme."""
    if not header:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("The Authorization header must read: Bearer TOKEN")
    return token.strip()


def role_of(view: ServingView, token: str) -> str | None:
    """Compared by hash, so that the time of the comparison tells nothing about the token."""
    digest = hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()
    return next((known.role for known in view.tokens if known.sha256 == digest), None)


def allow(view: ServingView, mode: str, header: str | None, needed: str) -> None:
    """Pass, or raise `Unauthenticated` or `Forbidden`. In mode `writes` reads and predictions are open."""
    if mode != "all":
        return
    token = bearer(header)
    role = role_of(view, token) if token is not None else None
    if role is None:
        raise Unauthenticated("This cluster wants a token: Authorization: Bearer TOKEN")
    if ROLES.index(role) < ROLES.index(needed):
        raise Forbidden(f"The token's role is {role!r}; this call needs {needed!r}", role=role, needed=needed)
