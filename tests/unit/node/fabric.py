"""Real nodes' edges in one process: blob store, peer port over mutual TLS, peer client. Only the log is left out."""

import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from pathlib import Path

from consensus.state import Digest, NodeId
from discovery.peer import Peer
from node.blobs.routes import BlobRoutes
from node.blobs.store import BlobStore
from node.blobs.transfer import Transfer
from node.identity.authority import utc_now
from node.identity.pki import Authority, Identity, NodeKey
from node.peering.client import PeerClient
from node.peering.gate import Presence
from node.peering.server import PeerApi
from node.peering.table import PeerTable
from node.peering.words import Grant
from node.telemetry.live import LiveFits

AUTHORITY = Authority.from_secret(b"a secret of 32 bytes, for tests!")
STRANGERS = Authority.from_secret(b"another secret of 32 bytes, too!")
CLUSTER = "c0ffee"
PATIENT_SECONDS = 30.0
"""For a connection: on a busy machine a handshake within one process may be slow for once, and nobody is dead."""


class Node:
    """One node's edge. It is its own `Gate`: `members` says whom it knows as a member."""

    def __init__(self, folder: Path, authority: Authority = AUTHORITY, now: Callable[[], datetime] = utc_now) -> None:
        self.revoked: set[NodeId] = set()
        self.banned: set[NodeId] = set()
        key, revoked = NodeKey.generate(), self.revoked.__contains__
        self.identity = Identity(authority, key, ["127.0.0.1"], revoked=revoked, now=now)
        self.id = self.identity.id
        self.members: set[NodeId] = set()
        self.joined: list[Peer] = []
        self.repaired: list[Digest] = []
        self.stopping_nodes: list[NodeId] = []
        self.blobs = BlobStore(folder / self.id)
        self.blobs.open()
        self.table = PeerTable(self.id)
        self.peers = PeerClient(self.identity, self.table, connect_seconds=PATIENT_SECONDS)
        self.transfer = Transfer(self.id, self.blobs, self.peers)
        self.api = PeerApi(self.identity, self.table, Presence(self))
        self.live = LiveFits()
        self.api.mount([*BlobRoutes(self.blobs, self.repair).routes(), *self.live.routes()])
        self.port = 0
        self._fingerprint = authority.fingerprint

    async def start(self) -> None:
        self.port = await self.api.start("127.0.0.1", self.port)

    async def stop(self) -> None:
        await self.transfer.stop()
        await self.peers.close()
        await self.api.stop()

    def standing(self) -> None:
        """It meets no other cluster."""

    def hello(self) -> Peer:
        return Peer(
            id=self.id,
            addresses=("127.0.0.1",),
            peer_port=self.port,
            raft_port=1,
            api_port=1,
            state="member" if self.members else "blank",
            cluster_id=CLUSTER if self.members else "",
            fingerprint=self._fingerprint,
            version="0.1.0",
        )

    def connected(self) -> frozenset[NodeId]:
        return frozenset()

    def is_member(self, node: NodeId) -> bool:
        return node in self.members

    async def join(self, peer: Peer) -> Grant | None:
        if NodeId(peer.id) in self.banned:
            raise PermissionError(f"node {peer.id} has left for good")
        self.joined.append(peer)
        return Grant(CLUSTER, self.id, "parvada") if self.members else None

    async def stopping(self, node: NodeId, timeout: float) -> bool:
        self.stopping_nodes.append(node)
        return True

    async def repair(self, digest: Digest) -> None:
        self.repaired.append(digest)

    async def keep(self, content: bytes) -> Digest:
        async with self.blobs.begin() as writer:
            await writer.write(content)
            return (await writer.commit()).digest


@contextlib.asynccontextmanager
async def fabric(folder: Path, count: int) -> AsyncIterator[list[Node]]:
    """`count` started nodes that are members and know one another."""
    nodes = [Node(folder) for _ in range(count)]
    for node in nodes:
        await node.start()
        node.members = {other.id for other in nodes}
    for node in nodes:
        for other in nodes:
            node.table.learn(other.hello())
    try:
        yield nodes
    finally:
        for node in nodes:
            await node.stop()
