"""Removal for good, from both sides: cutting off a removed node's live connections, and ending when it is this node."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from consensus.ports import Links
from consensus.state import ClusterState, NodeId
from node import logs
from node.peering.client import PeerClient
from node.peering.server import PeerApi

EXIT_REMOVED = 4
"""The exit code of a node that was removed from its cluster: there is no use in starting it again."""

_log = logs.get("removal")


class Removal:
    """`follow` every committed state. `happened` is set when this node is the one that was removed."""

    def __init__(self, me: NodeId, slot: Path, stop: Callable[[], None]) -> None:
        self._me, self._slot, self._stop = me, slot, stop
        self._cut: frozenset[NodeId] = frozenset()
        self.happened = asyncio.Event()

    def of_this_node(self, reason: str) -> None:
        """Nobody will ever talk to this node again: it ends, rather than to knock for ever."""
        if not self.happened.is_set():
            do = f"to come back as a new node, move {self._slot} away and start again"
            _log.error("node.removed", reason=reason, do=do)
        self.happened.set()
        self._stop()

    async def follow(self, state: ClusterState, links: Links, server: PeerApi, client: PeerClient) -> None:
        """A removed node's certificate is worth nothing from now on, nor are the connections it was good for."""
        if len(state.revoked) == len(self._cut):
            return  # ids are only ever added
        for node in set(state.revoked) - self._cut:
            if node == self._me:
                self.of_this_node("the cluster's log says so")
                continue
            links.disconnect(node)
            server.disconnect(node)
            await client.disconnect(node)
        self._cut = frozenset(state.revoked)
