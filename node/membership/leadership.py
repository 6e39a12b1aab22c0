"""What only the leader can do, asked from any node over mutual TLS: handing the leadership over, and taking the vote of
a node that is about to be removed."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from consensus.ports import Log, MembershipRefused, NoQuorum
from consensus.state import NodeId
from node.membership.manager import TRANSFER_SECONDS, Membership
from node.peering.client import PeerClient
from node.peering.words import PeerError, PeerRefused, decode

TRANSFER_PATH, RETIRE_PATH = "/peer/transfer", "/peer/retire"
BODY_SECONDS = 10.0
RETIRE_SECONDS = 8.0
"""For a vote to be gone: a few changes of the voters, one after another, and a hand-over if it is the leader's."""
RETRY_SECONDS = 0.1


class LeaderCall(msgspec.Struct, frozen=True):
    """The body of both calls; a transfer without a node goes to whoever is furthest."""

    to: NodeId | None


class NodeUnreachable(Exception):
    """The leader has no connection to that node."""


class LeaderUnreachable(Exception):
    """There is a leader, and this node cannot call it."""


class NotTakenOver(Exception):
    """The node that should lead did not take over in time; the old leader goes on."""


_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (MembershipRefused, 409),
    (NodeUnreachable, 502),
    (NotTakenOver, 504),
    (NoQuorum, 503),
)
"""How the leader's refusals travel to the node that asked."""


class Leadership:
    """`routes` are served on the peer port; `transfer` and `retire` are what the client API calls."""

    def __init__(
        self, client: PeerClient, log: Log, membership: Membership, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._log, self._membership, self._clock = client, log, membership, clock

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post(TRANSFER_PATH, self._served(self._transfer_here)),
            web.post(RETIRE_PATH, self._served(self._retire_here)),
        ]

    async def transfer(self, to: NodeId | None) -> None:
        """To that voter, or to the one that is furthest. Raises MembershipRefused, NoQuorum, NodeUnreachable,
        LeaderUnreachable, NotTakenOver."""
        await self._at_leader(TRANSFER_PATH, to, self._transfer_here)

    async def retire(self, node: NodeId) -> None:
        """Until that node has no vote any more. It may be the leader: then the next one goes on. Raises as
        `transfer`."""
        deadline = self._clock() + RETIRE_SECONDS
        failure: Exception = MembershipRefused(
            f"the vote of {node} could not be taken: too few other nodes that could go on with the voting are in reach"
        )
        while self._clock() < deadline:
            try:
                await self._at_leader(RETIRE_PATH, node, self._retire_here)
            except (LeaderUnreachable, NoQuorum) as error:
                failure = error
            if node not in self._log.status.voters:
                return
            await asyncio.sleep(RETRY_SECONDS)
        raise failure

    async def _at_leader(
        self, path: str, node: NodeId | None, here: Callable[[NodeId | None], Awaitable[None]]
    ) -> None:
        status = self._log.status
        if status.leader is None:
            raise NoQuorum("there is no leader; try again")
        if status.leader == status.me:
            await here(node)
            return
        try:
            await self._client.post(status.leader, path, msgspec.json.encode(LeaderCall(node)))
        except PeerRefused as error:
            raise _refusal(error) from error
        except PeerError as error:
            raise LeaderUnreachable(f"the leader ({status.leader}) cannot be called from this node: {error}") from error

    # ---------------------------------------------------------------- on the leader
    async def _transfer_here(self, to: NodeId | None) -> None:
        log = self._log
        if to is not None and to != log.status.me and to not in log.status.connected:
            raise NodeUnreachable(f"the leader has no connection to node {to}: it cannot take over now")
        try:
            await log.transfer_leadership(to, TRANSFER_SECONDS)
        except NoQuorum as error:
            if log.status.quorum:
                raise NotTakenOver(f"{to or 'no voter'} did not take over within {TRANSFER_SECONDS:g} s") from error
            raise

    async def _retire_here(self, node: NodeId | None) -> None:
        if node is None:
            raise MembershipRefused("say which node")
        await self._membership.retire(node, RETIRE_SECONDS / 2)

    def _served(
        self, here: Callable[[NodeId | None], Awaitable[None]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            try:
                async with asyncio.timeout(BODY_SECONDS):
                    asked = decode(await request.read(), LeaderCall)
            except (ValueError, TimeoutError) as error:
                return web.Response(status=400, text=f"not a call: {error}")
            try:
                await here(asked.to)
            except tuple(kind for kind, _ in _STATUS) as error:
                return web.Response(
                    status=next(status for kind, status in _STATUS if isinstance(error, kind)), text=str(error)
                )
            return web.Response()

        return serve


def _refusal(error: PeerRefused) -> Exception:
    """What the leader raised, raised here."""
    for kind, status in _STATUS:
        if error.status == status:
            return kind(error.reason)
    return LeaderUnreachable(str(error))
