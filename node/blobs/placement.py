"""Which nodes keep a blob: rendezvous hashing, so that every node computes the same owners without a coordinator and
a change of one member moves only that member's share (Thaler and Ravishankar, 1998)."""

import hashlib
from collections.abc import Sequence

from consensus.state import Digest, NodeId


def ranking(digest: Digest, members: Sequence[NodeId]) -> tuple[NodeId, ...]:
    """All members in the order in which they are asked to keep the blob. The order of `members` does not matter."""
    return tuple(sorted(members, key=lambda node: (_weight(digest, node), node), reverse=True))


def owners(digest: Digest, members: Sequence[NodeId], copies: int) -> tuple[NodeId, ...]:
    """The `copies` members (all, if they are fewer) that keep the blob, first choice first."""
    return ranking(digest, members)[:copies]


def _weight(digest: Digest, node: NodeId) -> bytes:
    return hashlib.sha256(f"{digest}/{node}".encode()).digest()
