"""Rotation of the cluster secret in a running cluster: makes the new one, hands it over, and follows the log's phases.

The secret itself travels over mutual TLS alone, from one member to another that asks for it.
"""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from consensus.messages import BeginRotation, ConfirmRotation
from consensus.ports import CommandRejected, Links, Log, LogError
from consensus.rules.rotation import holders
from consensus.state import NodeId, RotationPhase
from node import logs
from node.identity.keyring import Keyring
from node.identity.rotation_plan import Confirm, Fetch, Nothing, Present, Retire, Step, next_step
from node.identity.secret import SECRET_BYTES, SecretError, digest_of, parse_secret
from node.peering.client import PeerClient
from node.peering.words import PeerError

PATH = "/peer/secret"
TICK_SECONDS = 0.5
RETRY_SECONDS = 1.0
PROPOSE_SECONDS = 5.0
BARRIER_SECONDS = 5.0
HANDOVER_SECONDS = 3.0
"""For the other nodes to dial anew with certificates of the new secret, before those of the old one are cut."""
OFFER_SECONDS = 60.0
"""A secret that this node has made is kept for so long although no rotation is seen: its command may still commit."""

_log = logs.get("rotation")


class Rotator:
    """`run` it as a root task. `on_change` hears of each change of the keyring; `links` is None for a log that has none
    of its own, and `handover` is how long their renewal is given."""

    def __init__(
        self,
        me: NodeId,
        keyring: Keyring,
        client: PeerClient,
        log: Log,
        links: Links | None,
        on_change: Callable[[], Awaitable[None]],
        handover: float = HANDOVER_SECONDS,
        tick: float = TICK_SECONDS,
        retry: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._me, self._keyring, self._client, self._on_change = me, keyring, client, on_change
        self._log, self._links, self._handover = log, links, handover
        self._tick, self._retry, self._clock = tick, retry, clock
        self._made_at = -OFFER_SECONDS
        self._said = ""
        self._one = asyncio.Lock()

    def routes(self) -> list[web.RouteDef]:
        return [web.get(PATH, self._hand_over)]

    # ---------------------------------------------------------------- beginning
    async def begin(self, propose: Callable[[BeginRotation], Awaitable[object]]) -> None:
        """Make a new secret, durably, and let `propose` commit that it is to come; nothing if a rotation is under way
        already. Raises LogError, OSError, SecretError."""
        async with self._one:
            await self._log.barrier(BARRIER_SECONDS)
            rotation = self._log.state.rotation
            if rotation.phase is not RotationPhase.SETTLED:
                return
            secret = secrets.token_bytes(SECRET_BYTES)
            self._made_at = self._clock()
            await self._keyring.prepare(secret)
            await self._on_change()
            try:
                await propose(BeginRotation(rotation.generation + 1, digest_of(secret), self._me))
            except CommandRejected:
                self._made_at = -OFFER_SECONDS
                raise
            self._made_at = -OFFER_SECONDS  # it is applied here: from now on the log says whether it is still to come

    # ---------------------------------------------------------------- following
    async def run(self) -> None:
        while True:
            pause = self._tick
            if not isinstance(self._next(), Nothing):
                try:
                    async with self._one:
                        await self._log.barrier(BARRIER_SECONDS)  # what was applied by now may be old news
                        await self._carry_out(self._next())
                    self._said, pause = "", 0.0
                except (LogError, PeerError, SecretError, OSError) as error:
                    self._say(str(error))
                    pause = self._retry
            await asyncio.sleep(pause)

    def _next(self) -> Step:
        state = self._log.state
        if self._me not in state.members:
            return Nothing()
        step = next_step(state.rotation, self._me, self._keyring.held)
        recent = self._clock() - self._made_at < OFFER_SECONDS
        return Nothing() if recent and state.rotation.phase is RotationPhase.SETTLED else step

    async def _carry_out(self, step: Step) -> None:
        match step:
            case Fetch(digest):
                await self._keyring.prepare(await self._fetch(digest))
                await self._on_change()
                _log.info("secret.received", generation=self._coming)
            case Present():
                await self._keyring.present()
                await self._on_change()
                _log.info("secret.presented", generation=self._coming)
            case Retire():
                await self._retire()
            case Confirm(digest, phase):
                command = ConfirmRotation(self._me, digest, phase)
                await self._log.propose(command, actor="secret", timeout=PROPOSE_SECONDS)

    @property
    def _coming(self) -> int:
        return self._log.state.rotation.generation + 1

    async def _retire(self) -> None:
        """Connections that the old secret's certificates opened are replaced first, and what is left of them is cut: so
        no member is out of reach meanwhile, and nobody else stays."""
        if self._links is not None:
            self._links.renew_links()
            await self._client.renew()
            await asyncio.sleep(self._handover)
        await self._keyring.retire()
        await self._on_change()
        if self._links is not None:
            self._links.judge_links_again()
        _log.info("secret.retired")

    def _say(self, reason: str) -> None:
        """Once for each reason: the attempt is repeated each second."""
        if reason != self._said:
            self._said = reason
            _log.warning("rotation.waiting", reason=reason)

    # ---------------------------------------------------------------- handing over
    async def _fetch(self, digest: str) -> bytes:
        """From the first member that has it. Raises PeerError, SecretError."""
        failure: PeerError | SecretError = SecretError("no member that is known to have the new secret is left")
        for node in holders(self._log.state):
            if node == self._me:
                continue
            try:
                answer = await self._client.call(node, "GET", f"{PATH}?digest={digest}")
                return await asyncio.to_thread(_checked, answer, digest)
            except (PeerError, SecretError) as error:
                failure = error
        raise failure

    async def _hand_over(self, request: web.Request) -> web.Response:
        """To a member (the peer port has seen to that), and only the secret that is to come."""
        asked = request.query.get("digest", "")
        coming = self._log.state.rotation.coming
        secret = self._keyring.secret_with(asked) if asked and asked == coming else None
        if secret is None:
            return web.Response(status=404, text="no secret with this digest is to be handed over here")
        return web.Response(text=secret.hex(), headers={"Cache-Control": "no-store"})


def _checked(answer: bytes, digest: str) -> bytes:
    """Raises SecretError unless it is the very secret that the log speaks of."""
    secret = parse_secret(answer)
    if digest_of(secret) != digest:
        raise SecretError("a member handed over another secret than the log speaks of")
    return secret
