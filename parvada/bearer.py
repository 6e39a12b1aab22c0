"""Who may call what, as every door of a node sees it: bearer tokens, known by their hash, and roles in order."""

import hashlib
from typing import Final, get_args

from parvada.schema import Role

ROLES: Final[tuple[Role, ...]] = get_args(Role)
"""Each includes those before it."""


class Unauthenticated(Exception):
    """No token, or one that is not known, where one is needed: HTTP 401."""


def bearer(header: str | None) -> str | None:
    """The token in an `Authorization` header, None without one. Raises `Unauthenticated` for another scheme."""
    if not header:
        return None
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("The Authorization header must read: Bearer TOKEN")
    return token.strip()


def token_sha256(token: str) -> str:
    """By what tokens are stored and compared, so that the time of a comparison tells nothing about the token. A header
    may hold any bytes."""
    return hashlib.sha256(token.encode(errors="surrogateescape")).hexdigest()


def covers(role: str, needed: str) -> bool:
    """Whether a token of this role may make a call that needs that one."""
    return ROLES.index(role) >= ROLES.index(needed)
