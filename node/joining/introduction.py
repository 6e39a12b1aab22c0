"""How this node describes itself: to peers while it belongs to nothing, and in its cluster's log."""

import time

import msgspec

import parvada
from consensus.levels import LEVEL
from consensus.state import Member, NodeId
from discovery.peer import Peer
from node.config import Config
from node.hardware import Machine


class Introduction(msgspec.Struct, frozen=True):
    """`name` is for people; `address` is where peers reach this node."""

    config: Config
    id: NodeId
    name: str
    address: str
    machine: Machine

    def blank(self, fingerprint: str) -> Peer:
        """`fingerprint` is of the CA that this node's certificate is of."""
        return Peer(
            id=self.id,
            addresses=(self.address,),
            peer_port=self.config.peers.port,
            raft_port=self.config.peers.raft_port,
            api_port=self.config.client.port,
            state="blank",
            cluster_id="",
            fingerprint=fingerprint,
            version=parvada.__version__,
        )

    def member(self, cluster_id: str) -> Member:
        """As it registers itself in the cluster of that id, now."""
        return Member(
            id=self.id,
            name=self.name,
            addresses=(self.address,),
            peer_port=self.config.peers.port,
            raft_port=self.config.peers.raft_port,
            api_port=self.config.client.port,
            cpus=self.machine.cores,
            version=parvada.__version__,
            joined_at=time.time(),
            level=LEVEL,
            machine=self.machine.name(cluster_id),
            cpus_given=self.machine.given,
        )
