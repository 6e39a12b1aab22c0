"""What a node's store lacks and has too much of, by the replicated facts. Pure: the same facts, the same plan."""

from collections.abc import Set as AbstractSet

import msgspec

from consensus.queries import active_members, serving_digests
from consensus.state import ClusterState, Digest, NodeId
from node.blobs.placement import owners


class Plan(msgspec.Struct, frozen=True):
    """The difference between what should be and what is."""

    pull: frozenset[Digest]
    """Owed and not here."""
    announce: frozenset[Digest]
    """Here and referenced, but not known to the others."""
    retract: frozenset[Digest]
    """Known to the others, but not here."""
    spare: frozenset[Digest]
    """Here and referenced, but others' to keep, and all of those have it."""
    unreferenced: frozenset[Digest]
    """Here, and nothing refers to it (yet)."""


class Placement:
    """Owners of blobs under the present members, computed once for each blob and set of members."""

    def __init__(self, copies: int) -> None:
        self._copies = copies
        self._members: tuple[NodeId, ...] = ()
        self._known: dict[Digest, tuple[NodeId, ...]] = {}

    def follow(self, state: ClusterState) -> None:
        members = tuple(member.id for member in active_members(state))
        if members != self._members:
            self._members = members
            self._known = {}

    def owners(self, digest: Digest) -> tuple[NodeId, ...]:
        found = self._known.get(digest)
        if found is None:
            found = self._known[digest] = owners(digest, self._members, self._copies)
        return found


def plan(state: ClusterState, me: NodeId, held: AbstractSet[Digest], placement: Placement) -> Plan:
    """For a node that is a member; `held` is what its store has."""
    placement.follow(state)
    serving = serving_digests(state)
    owed = {digest for digest in state.blobs if digest in serving or me in placement.owners(digest)}
    here = {digest for digest in state.blobs if digest in held}
    said = {digest for digest, blob in state.blobs.items() if me in blob.holders}
    return Plan(
        pull=frozenset(owed - here),
        announce=frozenset(here - said),
        retract=frozenset(said - here),
        spare=frozenset(digest for digest in here - owed if _kept(state, digest, placement)),
        unreferenced=frozenset(held - here),
    )


def lost(state: ClusterState, available: AbstractSet[NodeId]) -> frozenset[Digest]:
    """Referenced blobs that none of the available nodes is recorded to hold."""
    return frozenset(digest for digest, blob in state.blobs.items() if available.isdisjoint(blob.holders))


def _kept(state: ClusterState, digest: Digest, placement: Placement) -> bool:
    found = placement.owners(digest)
    return bool(found) and set(found) <= set(state.blobs[digest].holders)
