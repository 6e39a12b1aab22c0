"""Two clusters under one secret: which of them ends in favour of the other, if either may. Pure.

Nothing is ever merged: only a cluster that nobody has put anything in ends, and its nodes join the other as new ones.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Set

import msgspec

from discovery.peer import check_cluster_id


class Standing(msgspec.Struct, frozen=True):
    """What a member says of its cluster. The constructor raises ValueError for an id that is none.

    `dissolvable`: nothing is lost if it ends; `quorum`: it takes writes, so it also takes new members.
    """

    cluster_id: str
    dissolvable: bool
    quorum: bool

    def __post_init__(self) -> None:
        check_cluster_id(self.cluster_id)


def ends_for(own: Standing, others: Iterable[Standing]) -> str:
    """The id of the cluster in favour of which our own should end; empty if it goes on.

    Of two that both may end the one with the lower id stays, so they never swap. What is said of another cluster may be
    out of date; then both may end, and their nodes form or join one: still nothing is lost.
    """
    return min((other.cluster_id for other in others if _ends(own, other)), default="")


def _ends(own: Standing, other: Standing) -> bool:
    if not own.dissolvable or not other.quorum or other.cluster_id == own.cluster_id:
        return False
    return not other.dissolvable or other.cluster_id < own.cluster_id


def abandoned_for(own: Standing, voters: Set[str], elsewhere: Mapping[str, str]) -> str:
    """Where most of the voters of our own cluster are now, if so many are in others (`elsewhere`: node to cluster) that
    it never commits anything again; empty otherwise.

    A voter goes elsewhere only after the end of its cluster was committed, which this node has slept through then.
    """
    gone = Counter(elsewhere[voter] for voter in voters if voter in elsewhere)
    if own.quorum or not own.dissolvable or len(voters) - gone.total() > len(voters) // 2:
        return ""
    return min(gone, key=lambda cluster: (-gone[cluster], cluster), default="")
