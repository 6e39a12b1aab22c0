"""What a node that is to leave still has to hand over, by the replicated facts: pure."""

from collections.abc import Set as AbstractSet

from consensus.queries import active_members
from consensus.state import ClusterState, Digest, NodeId


def unmoved(state: ClusterState, node: NodeId, copies: int) -> int:
    """How many of this node's blobs are on fewer others than there should be copies. `copies` are as many as there
    are nodes that take part, if these are fewer; where there is none at all, nothing can move."""
    others = frozenset(member.id for member in active_members(state)) - {node}
    enough = max(1, min(copies, len(others)))
    return sum(
        node in blob.holders and len(others.intersection(blob.holders)) < enough for blob in state.blobs.values()
    )


def only_here(state: ClusterState, node: NodeId, within_reach: AbstractSet[NodeId]) -> frozenset[Digest]:
    """Blobs of this node that no other node within reach is recorded to hold: without it they are lost."""
    others = within_reach - {node}
    return frozenset(
        digest for digest, blob in state.blobs.items() if node in blob.holders and others.isdisjoint(blob.holders)
    )
