"""Where every known node is reached. Facts from the log and from authenticated greetings, newest first."""

import math
import time
from collections.abc import Callable, Mapping

import msgspec

from consensus.ports import PeerAddress
from consensus.state import ClusterState, Member, NodeId
from discovery.peer import MAX_ADDRESSES, Peer
from node import logs

_log = logs.get("peer_table")

MAX_STRANGERS = 256
"""Authenticated nodes that are not members (yet): more than a cluster ever admits at once."""


class PeerTable:
    """The peers of `me`. A greeting tells where a node is now, the log where it said it was when it registered."""

    def __init__(self, me: NodeId, clock: Callable[[], float] = time.monotonic) -> None:
        self._me = me
        self._clock = clock
        self._greeted: dict[NodeId, Peer] = {}
        self._members: dict[NodeId, Peer] = {}
        self._revoked: frozenset[NodeId] = frozenset()
        self._registered = False
        self._cluster_id = ""
        self._since: dict[NodeId, float] = {}
        self._listeners: list[Callable[[], None]] = []

    def on_news(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever a greeting has told something new."""
        self._listeners.append(listener)

    def learn(self, peer: Peer, address: str | None = None) -> bool:
        """Note what a peer said of itself over mutual TLS; `address` is where it really answered. Returns whether
        that was news."""
        node = NodeId(peer.id)
        if node == self._me or node in self._revoked:
            return False
        if address is not None:
            peer = with_first_address(peer, address)
        if self._greeted.get(node) == peer:
            return False
        if node not in self._members and node not in self._greeted and len(self._strangers()) >= MAX_STRANGERS:
            return False
        self._greeted[node] = peer
        for listener in self._listeners:
            listener()
        return True

    def follow(self, state: ClusterState, fingerprint: str) -> None:
        """Take over the members of a committed state; the revoked are forgotten."""
        self._revoked, self._cluster_id = frozenset(state.revoked), state.cluster_id
        others = (member for member in state.members.values() if member.id not in {self._me, *self._revoked})
        made = {member.id: _peer_of(member, state.cluster_id, fingerprint) for member in others}
        self._members = {node: peer for node, peer in made.items() if peer is not None}
        self._note_newcomers(self._me in state.members)
        self._greeted = {node: peer for node, peer in self._greeted.items() if node not in self._revoked}

    def places(self, node: NodeId) -> tuple[tuple[str, int], ...]:
        """(address, peer port) in the order to try; empty for an unknown node."""
        found = [peer for peer in (self._greeted.get(node), self._members.get(node)) if peer is not None]
        return tuple(dict.fromkeys((address, peer.peer_port) for peer in found for address in peer.addresses))

    def _note_newcomers(self, registered: bool) -> None:
        """Members that were here when this node came back count as old: it must find them again by itself."""
        came_back = registered and not self._since and not self._registered
        now = -math.inf if came_back else self._clock()
        self._since = {node: self._since.get(node, now) for node in self._members}
        self._registered = registered

    def new_members(self, seconds: float) -> frozenset[NodeId]:
        """Those of whom this node has heard in its log for less than so long: Raft is about to connect to them."""
        now = self._clock()
        return frozenset(node for node, since in self._since.items() if now - since < seconds)

    def find(self, node: NodeId) -> Peer | None:
        """What is known of a node, newest first."""
        return self._greeted.get(node) or self._members.get(node)

    def raft_peers(self) -> Mapping[NodeId, PeerAddress]:
        """For `Log.set_peers`: members, and greeted nodes, which may be about to join. Until this node is a member
        itself, those that it has greeted: all others would refuse it, after a handshake each time. Members of another
        cluster have a log of their own."""
        nodes = {*self._members, *self._greeted} if self._registered else {*self._greeted}
        return {node: self._raft_address(node) for node in nodes if not self._is_foreign(node)}

    def _is_foreign(self, node: NodeId) -> bool:
        """By its own word, the last time that it was greeted."""
        said = self._greeted.get(node)
        return bool(said and said.cluster_id and self._cluster_id and said.cluster_id != self._cluster_id)

    def peers(self) -> tuple[Peer, ...]:
        """All known nodes but this one, as they are told to others."""
        return tuple(
            self._greeted.get(node) or self._members[node] for node in sorted({*self._members, *self._greeted})
        )

    def forget(self, node: NodeId) -> None:
        """A greeted node that is not a member is gone; a member stays where the log says."""
        self._greeted.pop(node, None)

    def _raft_address(self, node: NodeId) -> PeerAddress:
        found = [peer for peer in (self._greeted.get(node), self._members.get(node)) if peer is not None]
        addresses = dict.fromkeys(address for peer in found for address in peer.addresses)
        return PeerAddress(tuple(addresses), found[0].raft_port)

    def _strangers(self) -> set[NodeId]:
        return self._greeted.keys() - self._members.keys()


def _peer_of(member: Member, cluster_id: str, fingerprint: str) -> Peer | None:
    """None for a member that registered what nobody can dial: a fact of the log must not stop every node."""
    try:
        return Peer(
            id=member.id,
            addresses=member.addresses,
            peer_port=member.peer_port,
            raft_port=member.raft_port,
            api_port=member.api_port,
            state="member",
            cluster_id=cluster_id,
            fingerprint=fingerprint,
            version=member.version,
        )
    except ValueError as error:
        _log.warning("peer.unusable", peer=member.id, reason=str(error))
        return None


def with_first_address(peer: Peer, address: str) -> Peer:
    """The same peer with the address at which it answered in front."""
    others = tuple(known for known in peer.addresses if known != address)
    return msgspec.structs.replace(peer, addresses=(address, *others)[:MAX_ADDRESSES])
