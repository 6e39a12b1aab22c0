"""What a member answers its peers: who is one, whether they may join or stop, and how its cluster stands."""

import time
from collections.abc import Callable, Iterable, Set

from msgspec.structs import replace

from consensus.ports import Log
from consensus.rules.members import dissolvable
from consensus.state import NodeId
from discovery.merging import Standing
from discovery.peer import Peer
from node import logs
from node.identity.pki import Identity
from node.joining.joining import ClusterRecord
from node.membership.manager import Membership
from node.peering.table import PeerTable
from node.peering.words import Grant

SPLIT_SECONDS = 30.0
"""A member of another cluster greets every 2 s while it is in reach; after this it counts as gone."""

_log = logs.get("gate")


class MemberGate:
    """A `node.peering.gate.Gate`. `on_foreign` is told of members of other clusters that introduce themselves."""

    def __init__(
        self,
        blank: Peer,
        identity: Identity,
        record: ClusterRecord,
        table: PeerTable,
        log: Log,
        membership: Membership,
        on_foreign: Callable[[Peer], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`blank`: this node as it was until now."""
        self._me = replace(blank, state="member", cluster_id=record.cluster_id)
        self._identity, self._record, self._table = identity, record, table
        self._log, self._membership = log, membership
        self._on_foreign, self._clock = on_foreign, clock
        self._split: dict[NodeId, tuple[str, float]] = {}

    # ---------------------------------------------------------------- of the cluster
    def standing(self) -> Standing | None:
        """How this node's cluster stands, for members of others; None while this node does not know."""
        state, status = self._log.state, self._log.status
        if not state.cluster_id:
            return None
        return Standing(state.cluster_id, dissolvable(state), status.quorum and not state.dissolved)

    def split(self, met: Iterable[Peer] = ()) -> dict[NodeId, str]:
        """Members of other clusters under the same secret, with their cluster: those that introduced themselves
        lately, and those among the peers that this node has `met`."""
        oldest, ours = self._clock() - SPLIT_SECONDS, self._record.cluster_id
        theirs = {node: cluster for node, (cluster, at) in self._split.items() if at >= oldest}
        return theirs | {
            NodeId(peer.id): peer.cluster_id for peer in met if peer.state == "member" and peer.cluster_id != ours
        }

    def _note_split(self, node: NodeId, theirs: str) -> None:
        if node not in self.split():
            _log.warning("cluster.split", peer=node, theirs=theirs, ours=self._record.cluster_id)
        now = self._clock()
        self._split = {other: said for other, said in self._split.items() if said[1] >= now - SPLIT_SECONDS}
        self._split[node] = (theirs, now)

    # ---------------------------------------------------------------- of nodes
    def hello(self) -> Peer:
        if self._me.fingerprint != self._identity.fingerprint:  # the cluster's secret is being replaced
            self._me = replace(self._me, fingerprint=self._identity.fingerprint)
        return self._me

    def connected(self) -> Set[NodeId]:
        return frozenset(self._log.status.connected)

    def is_member(self, node: NodeId) -> bool:
        return node in self._log.state.members

    async def join(self, peer: Peer) -> Grant | None:
        node = NodeId(peer.id)
        if node == self._me.id:  # a seed that leads back to this node
            return None
        if node in self._log.state.revoked:
            raise PermissionError(f"node {node} has left this cluster for good")
        if peer.state == "member" and peer.cluster_id != self._record.cluster_id:
            self._note_split(node, peer.cluster_id)
            self._on_foreign(peer)
            return None
        self._split.pop(node, None)
        self._table.learn(peer)
        if self._log.state.dissolved:
            return None
        return Grant(self._record.cluster_id, self._record.genesis, self._record.name, self._leader())

    def _leader(self) -> Peer | None:
        leader = self._log.status.leader
        return self._table.find(leader) if leader is not None else None

    async def stopping(self, node: NodeId, timeout: float) -> bool:
        return await self._membership.stopping(node, timeout)
