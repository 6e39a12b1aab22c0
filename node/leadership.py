"""Handing the leadership over from any node: only the leader can, so others ask it over mutual TLS."""

import asyncio
from typing import Protocol

import msgspec
from aiohttp import web

from consensus.ports import Log, MembershipRefused, NoQuorum
from consensus.state import NodeId
from node.peers import PeerClient, PeerRefused, decode

PATH = "/peer/transfer"
BODY_SECONDS = 10.0


class TransferCall(msgspec.Struct, frozen=True):
    to: NodeId | None


class Poster(Protocol):
    async def post(self, node: NodeId, path: str, body: bytes = b"", timeout: float = 10.0) -> bytes: ...


class Leadership:
    """`route` is served on the peer port; `transfer` is what the client API calls."""

    def __init__(self, client: PeerClient) -> None:
        self._client: Poster = client
        self._log: Log | None = None

    def belongs(self, log: Log) -> None:
        self._log = log

    def route(self) -> web.RouteDef:
        return web.post(PATH, self._serve)

    async def transfer(self, to: NodeId | None) -> None:
        """To that voter, or to the one that is furthest. Raises MembershipRefused, NoQuorum, PeerError."""
        if self._log is None:
            raise MembershipRefused("this node is not a member yet")
        status = self._log.status
        if status.leader is None:
            raise NoQuorum("there is no leader to hand over; try again")
        if status.leader == status.me:
            await self._log.transfer_leadership(to)
            return
        try:
            await self._client.post(status.leader, PATH, msgspec.json.encode(TransferCall(to)))
        except PeerRefused as error:
            raise MembershipRefused(error.reason) from error

    async def _serve(self, request: web.Request) -> web.Response:
        if self._log is None:
            raise web.HTTPConflict(text="this node is not a member yet")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                asked = decode(await request.read(), TransferCall)
        except (ValueError, TimeoutError) as error:
            raise web.HTTPBadRequest(text=f"not a call: {error}") from error
        try:
            await self._log.transfer_leadership(asked.to)
        except (MembershipRefused, NoQuorum) as error:
            raise web.HTTPConflict(text=str(error)) from error
        return web.Response()
