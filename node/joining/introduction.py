"""How this node describes itself: to peers while it belongs to nothing, and in its cluster's log."""

import time

import parvada
from consensus.levels import LEVEL
from consensus.state import Member, NodeId
from discovery.peer import Peer
from node.config import Config


def blank_peer(config: Config, me: NodeId, address: str, fingerprint: str) -> Peer:
    """`fingerprint` is of the CA that this node's certificate is of."""
    return Peer(
        id=me,
        addresses=(address,),
        peer_port=config.peers.port,
        raft_port=config.peers.raft_port,
        api_port=config.client.port,
        state="blank",
        cluster_id="",
        fingerprint=fingerprint,
        version=parvada.__version__,
    )


def own_member(config: Config, me: NodeId, name: str, address: str) -> Member:
    """As it registers itself."""
    return Member(
        id=me,
        name=name,
        addresses=(address,),
        peer_port=config.peers.port,
        raft_port=config.peers.raft_port,
        api_port=config.client.port,
        cpus=config.cpus,
        version=parvada.__version__,
        joined_at=time.time(),
        level=LEVEL,
    )
