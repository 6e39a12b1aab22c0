"""The shell around `discovery.promises`: keeps this node's promises durable in its slot, and proposes to the others."""

import asyncio
import random
import uuid
from collections.abc import Iterable
from pathlib import Path

import msgspec
from aiohttp import web

from consensus.state import NodeId
from discovery.promises import Ask, Founding, Promised, Vote, answer, choose, next_ballot, quorum_of, vote
from node import logs
from node.files import write_atomically
from node.peering.client import PeerClient
from node.peering.words import PeerError, decode

PATH = "/peer/promise"
FILE = "promise.json"
ASK_SECONDS = 3.0
BODY_SECONDS = 5.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0
"""After a lost round two proposers wait different random times, or they would outbid each other for ever."""

_log = logs.get("promises")


class Promises:
    """One node's acceptor and proposer. `route` is served on the peer port, also to blank nodes."""

    def __init__(self, me: NodeId, slot: Path, expect: int, name: str, client: PeerClient) -> None:
        self._me, self._expect, self._name, self._client = me, expect, name, client
        self._path = slot / FILE
        self._state = msgspec.json.decode(self._path.read_bytes(), type=Promised) if self._path.exists() else Promised()
        self._mine = Founding(me, str(uuid.uuid4()), name)
        self._heard: dict[NodeId, Promised] = {}
        self._pause = FIRST_PAUSE
        self._one_at_a_time = asyncio.Lock()

    @property
    def named(self) -> str:
        """The node that this one has accepted as the one that forms; empty if none."""
        return self._state.value.node_id if self._state.value is not None else ""

    # ---- acceptor
    def route(self) -> web.RouteDef:
        return web.post(PATH, self._serve)

    async def _serve(self, request: web.Request) -> web.Response:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                ask = decode(await request.read(), Ask)
        except (ValueError, TimeoutError) as error:
            raise web.HTTPBadRequest(text=f"not a question: {error}") from error
        if ask.expect != self._expect:
            raise web.HTTPConflict(text=f"PARVADA_EXPECT is {self._expect} here, and {ask.expect} there")
        reply = await self.answer(ask)
        return web.Response(body=msgspec.json.encode(reply), content_type="application/json")

    async def answer(self, ask: Ask) -> Vote:
        """Durable before it returns. Raises OSError: nothing was promised."""
        async with self._one_at_a_time:
            before, after = self._state, answer(self._state, ask)
            if after != before:
                await asyncio.to_thread(write_atomically, self._path, msgspec.json.encode(after))
                self._state = after
            return vote(before, ask)

    # ---- proposer
    async def propose(self, others: Iterable[NodeId]) -> Founding | None:
        """One round among this node and `others`: what is decided, by this round or an earlier one; None if it did
        not come to a decision, after a pause."""
        ballot = next_ballot([self._state, *self._heard.values()], self._me)
        nodes = [self._me, *others]
        granted = await self._ask_all(nodes, Ask(ballot, self._expect))
        if len(granted) >= quorum_of(self._expect):
            value = choose(list(granted.values()), self._mine)
            accepted = await self._ask_all(nodes, Ask(ballot, self._expect, value))
            if len(accepted) >= quorum_of(self._expect):
                self._pause = FIRST_PAUSE
                return value
        await asyncio.sleep(random.uniform(0.5, 1.0) * self._pause)  # noqa: S311  no secret
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return None

    async def _ask_all(self, nodes: list[NodeId], ask: Ask) -> dict[NodeId, Vote]:
        votes = await asyncio.gather(*(self._ask(node, ask) for node in nodes))
        for node, each in zip(nodes, votes, strict=True):
            if each is not None:
                self._heard[node] = each.promised
        return {node: each for node, each in zip(nodes, votes, strict=True) if each is not None and each.granted}

    async def _ask(self, node: NodeId, ask: Ask) -> Vote | None:
        if node == self._me:
            return await self.answer(ask)
        try:
            return decode(await self._client.post(node, PATH, msgspec.json.encode(ask), ASK_SECONDS), Vote)
        except (PeerError, ValueError) as error:
            _log.info("promise.refused", peer=node, reason=str(error))
            return None
