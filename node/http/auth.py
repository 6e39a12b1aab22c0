"""Who calls, and may they: bearer tokens by their hash, roles in order, one minimum role a route."""

import hashlib
import hmac
from collections.abc import Sequence

import msgspec
from aiohttp import web

from consensus.state import ClusterState
from node.http.context import Settings
from node.http.errors import Refusal
from serving.auth import ROLES, bearer
from serving.errors import Unauthenticated


class Caller(msgspec.Struct, frozen=True):
    """`name` goes into the audit; `token` names the token in idempotency keys."""

    name: str
    role: str
    token: str


ANONYMOUS = Caller("anonymous", "", "")
CALLER = web.RequestKey("caller", Caller)


def identify(header: str | None, state: ClusterState, admin_sha256s: Sequence[str]) -> Caller:
    """The holder of the token; anonymous without one. Raises Unauthenticated: the token is unknown."""
    text = bearer(header)
    if text is None:
        return ANONYMOUS
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    if any(hmac.compare_digest(digest, admin) for admin in admin_sha256s):
        return Caller("admin", "admin", "admin")
    for token in state.tokens.values():
        if hmac.compare_digest(digest, token.sha256):
            return Caller(token.name, token.role.value, token.id)
    raise Unauthenticated(
        "this token is not known to the cluster (any more); `parvada token show` prints the admin token"
    )


def admit(caller: Caller, needed: str, settings: Settings) -> None:
    """Pass, or raise. Where only writes need a token, reading is open to everybody."""
    if settings.auth == "writes" and needed in ("viewer", "predictor"):
        return
    if not caller.role:
        raise Unauthenticated(
            "this call needs a token: Authorization: Bearer TOKEN; `parvada token show` on a node prints admin's"
        )
    if ROLES.index(caller.role) < ROLES.index(needed):
        raise Refusal(
            403,
            "forbidden",
            f"the token {caller.name!r} has the role {caller.role}; this call needs {needed}",
            {"role": caller.role, "needed": needed},
        )
