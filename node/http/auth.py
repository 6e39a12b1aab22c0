"""Who calls, and may they: bearer tokens by their hash, roles in order, one minimum role a route."""

import asyncio
import hmac
import time
from collections.abc import Callable, Sequence

import msgspec
from aiohttp import web

from consensus.ports import Log, NoQuorum
from consensus.state import ClusterState
from node.http.context import Settings
from node.http.errors import Refusal
from parvada.bearer import Unauthenticated, bearer, covers, token_sha256


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
    digest = token_sha256(text)
    if any(hmac.compare_digest(digest, admin) for admin in admin_sha256s):
        return Caller("admin", "admin", "admin")
    for token in state.tokens.values():
        if hmac.compare_digest(digest, token.sha256):
            return Caller(token.name, token.role.value, token.id)
    raise Unauthenticated(
        "this token is not known to the cluster (any more); `parvada token show` prints the admin token"
    )


BARRIER_SECONDS = 2.0
PAUSE_SECONDS = 0.5
"""Between two looks at the log for the sake of unknown tokens: strangers must not keep it busy."""


class Callers:
    """Knows callers by the newest state: a token that this node does not know may be one that it has not heard of yet,
    as it has just come back, or the token was made on another node a moment ago."""

    def __init__(
        self, log: Log, admin_sha256s: Callable[[], Sequence[str]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._admin_sha256s, self._clock = log, admin_sha256s, clock
        self._one = asyncio.Lock()
        self._looked_at = -PAUSE_SECONDS
        self._failure: NoQuorum | None = None

    async def identify(self, header: str | None) -> Caller:
        """As `identify`. Raises NoQuorum where nobody can tell whether the token is good."""
        try:
            return identify(header, self._log.state, self._admin_sha256s())
        except Unauthenticated:
            if bearer(header) is None:
                raise
        await self._catch_up(self._clock())
        return identify(header, self._log.state, self._admin_sha256s())

    async def _catch_up(self, arrived: float) -> None:
        """Pass through the log once, together with all others that wait for it."""
        async with self._one:
            if self._looked_at < arrived:
                await asyncio.sleep(max(0.0, self._looked_at + PAUSE_SECONDS - self._clock()))
                self._looked_at, self._failure = self._clock(), None
                try:
                    await self._log.barrier(BARRIER_SECONDS)
                except NoQuorum as error:
                    self._failure = error
            if self._failure is not None:
                raise self._failure


def admit(caller: Caller, needed: str, settings: Settings) -> None:
    """Pass, or raise. Where only writes need a token, reading is open to everybody."""
    if settings.auth == "writes" and needed in ("viewer", "predictor"):
        return
    if not caller.role:
        raise Unauthenticated(
            "this call needs a token: Authorization: Bearer TOKEN; `parvada token show` on a node prints admin's"
        )
    if not covers(caller.role, needed):
        raise Refusal(
            403,
            "forbidden",
            f"the token {caller.name!r} has the role {caller.role}; this call needs {needed}",
            {"role": caller.role, "needed": needed},
        )
