"""Who may predict: the tokens that the view knows, and what is open without one."""

from parvada.bearer import Unauthenticated, bearer, covers, token_sha256
from serving.errors import Forbidden
from serving.view import ServingView


def role_of(view: ServingView, token: str) -> str | None:
    digest = token_sha256(token)
    return next((known.role for known in view.tokens if known.sha256 == digest), None)


def allow(view: ServingView, mode: str, header: str | None, needed: str) -> None:
    """Pass, or raise `Unauthenticated` or `Forbidden`. In mode `writes` reads and predictions are open."""
    if mode != "all":
        return
    token = bearer(header)
    role = role_of(view, token) if token is not None else None
    if role is None:
        raise Unauthenticated("This cluster wants a token: Authorization: Bearer TOKEN")
    if not covers(role, needed):
        raise Forbidden(f"The token's role is {role!r}; this call needs {needed!r}", role=role, needed=needed)
