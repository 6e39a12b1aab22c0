"""What this node answers its peers: who it is, whether they are members, whether they may join or stop."""

import time
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from consensus.messages import DropBlobs
from consensus.ports import Log, LogError
from consensus.rules.members import dissolvable
from consensus.state import Digest, NodeId
from discovery.merging import Standing
from discovery.peer import Peer
from node import logs
from node.joining.joining import ClusterRecord
from node.membership.manager import Membership
from node.peering.table import PeerTable
from node.peering.words import Grant

SPLIT_SECONDS = 30.0
"""A member of another cluster greets every 2 s while it is in reach; after this it counts as gone."""

_log = logs.get("gate")


class NodeGate:
    """The peer port's view of the node. Opens before there is a log: then it only greets."""

    def __init__(
        self,
        blank: Peer,
        table: PeerTable,
        on_news: Callable[[], None],
        on_foreign: Callable[[Peer], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_foreign` is told of members of other clusters that introduce themselves."""
        self._peer = blank
        self._table = table
        self._on_news, self._on_foreign, self._clock = on_news, on_foreign, clock
        self._record: ClusterRecord | None = None
        self._log: Log | None = None
        self._membership: Membership | None = None
        self._heard: set[NodeId] = set()
        self._split: dict[NodeId, tuple[str, float]] = {}

    def belongs(self, record: ClusterRecord, log: Log, membership: Membership) -> None:
        """This node is part of a cluster from now on."""
        self._record, self._log, self._membership = record, log, membership
        self._peer = Peer(
            id=self._peer.id,
            addresses=self._peer.addresses,
            peer_port=self._peer.peer_port,
            raft_port=self._peer.raft_port,
            api_port=self._peer.api_port,
            state="member",
            cluster_id=record.cluster_id,
            fingerprint=self._peer.fingerprint,
            version=self._peer.version,
        )

    def standing(self) -> Standing | None:
        """How this node's cluster stands, for members of others; None while this node does not know."""
        if self._log is None or not self._log.state.cluster_id:
            return None
        state, status = self._log.state, self._log.status
        return Standing(state.cluster_id, dissolvable(state), status.quorum and not state.dissolved)

    def present(self, fingerprint: str) -> None:
        """This node's certificate is of another CA from now on."""
        self._peer = replace(self._peer, fingerprint=fingerprint)

    def heard(self) -> frozenset[NodeId]:
        """Peers that have introduced themselves, as blank when they last did: they reach this node."""
        return frozenset(self._heard)

    def split(self, met: Iterable[Peer] = ()) -> dict[NodeId, str]:
        """Members of other clusters under the same secret, with their cluster: those that introduced themselves
        lately, and those among the peers that this node has `met`."""
        if self._record is None:
            return {}
        oldest, ours = self._clock() - SPLIT_SECONDS, self._record.cluster_id
        theirs = {node: cluster for node, (cluster, at) in self._split.items() if at >= oldest}
        return theirs | {
            NodeId(peer.id): peer.cluster_id for peer in met if peer.state == "member" and peer.cluster_id != ours
        }

    def _note_split(self, node: NodeId, theirs: str, ours: str) -> None:
        if node not in self.split():
            _log.warning("cluster.split", peer=node, theirs=theirs, ours=ours)
        now = self._clock()
        self._split = {other: said for other, said in self._split.items() if said[1] >= now - SPLIT_SECONDS}
        self._split[node] = (theirs, now)

    # ---- node.peering.server.Gate
    def hello(self) -> Peer:
        return self._peer

    def is_member(self, node: NodeId) -> bool:
        return self._log is not None and node in self._log.state.members

    async def join(self, peer: Peer) -> Grant | None:
        node = NodeId(peer.id)
        if node == self._peer.id:  # a seed that leads back to this node
            return None
        if self._log is not None and node in self._log.state.revoked:
            raise PermissionError(f"node {node} has left this cluster for good")
        if self._record is not None and peer.state == "member" and peer.cluster_id != self._record.cluster_id:
            self._note_split(node, peer.cluster_id, self._record.cluster_id)
            self._on_foreign(peer)
            return None
        self._split.pop(node, None)
        if self._record is None:  # of use to form, and to nothing after that
            (self._heard.add if peer.state == "blank" else self._heard.discard)(node)
        if self._table.learn(peer):
            self._on_news()
        if self._record is None or (self._log is not None and self._log.state.dissolved):
            return None
        return Grant(self._record.cluster_id, self._record.genesis, self._record.name, self._leader())

    def _leader(self) -> Peer | None:
        leader = self._log.status.leader if self._log is not None else None
        return self._table.find(leader) if leader is not None else None

    async def stopping(self, node: NodeId, timeout: float) -> bool:
        if self._membership is None:
            return False
        return await self._membership.stopping(node, timeout)

    async def repair(self, digest: Digest) -> None:
        if self._log is None:
            return
        try:
            await self._log.propose(DropBlobs(NodeId(self._peer.id), (digest,)), actor="blobs")
        except LogError as error:
            _log.warning("blob.loss_unrecorded", digest=digest, reason=str(error))
