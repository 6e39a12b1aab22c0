"""What this node is to its peers: blank at first, then a member. The peer port and the greeter go by it."""

from collections.abc import Set
from typing import Protocol

from consensus.state import NodeId
from discovery.merging import Standing
from discovery.peer import Peer
from node.peering.table import PeerTable
from node.peering.words import Grant


class Gate(Protocol):
    """What the rest of the node decides and answers."""

    def hello(self) -> Peer:
        """This node as it is now."""
        ...

    def connected(self) -> Set[NodeId]:
        """Whom Raft is connected to."""
        ...

    def is_member(self, node: NodeId) -> bool:
        """Whether that node is a member by what this node has applied."""
        ...

    async def join(self, peer: Peer) -> Grant | None:
        """Let a node in, or be ready for it. None while this node is not a member itself. Raises PermissionError
        for a node that must stay outside."""
        ...

    def standing(self) -> Standing | None:
        """How the node's cluster stands; None while it does not know."""
        ...

    async def stopping(self, node: NodeId, timeout: float) -> bool:
        """See `node.membership.manager.Membership.stopping`."""
        ...


class BlankGate:
    """Of a node that belongs to nothing: it learns who is there, and has nothing to grant."""

    def __init__(self, me: Peer, table: PeerTable) -> None:
        self._me, self._table = me, table
        self._heard: set[NodeId] = set()

    def heard(self) -> frozenset[NodeId]:
        """Peers that have introduced themselves, as blank when they last did: they reach this node."""
        return frozenset(self._heard)

    def hello(self) -> Peer:
        return self._me

    def connected(self) -> Set[NodeId]:
        return frozenset()

    def is_member(self, node: NodeId) -> bool:
        return False

    async def join(self, peer: Peer) -> Grant | None:
        node = NodeId(peer.id)
        if node != self._me.id:  # or a seed has led back to this node
            (self._heard.add if peer.state == "blank" else self._heard.discard)(node)
            self._table.learn(peer)
        return None

    def standing(self) -> Standing | None:
        return None

    async def stopping(self, node: NodeId, timeout: float) -> bool:
        return False


class Presence:
    """The one reference to the gate: `become` a member, and all that meets peers goes by the new one."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def become(self, gate: Gate) -> None:
        self.gate = gate

    def hello(self) -> Peer:
        return self.gate.hello()

    def connected(self) -> Set[NodeId]:
        return self.gate.connected()
