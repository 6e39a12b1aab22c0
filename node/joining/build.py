"""The room's parts, built in one line: how a blank node comes to belong to a cluster, and what it is as a member."""

from collections.abc import Callable, Mapping
from pathlib import Path

from consensus.ports import Log
from consensus.state import NodeId
from discovery.peer import Peer
from node.config import Config
from node.identity.pki import Identity
from node.joining.dissolution import Departure, Dissolution
from node.joining.gate import MemberGate
from node.joining.introduction import Introduction
from node.joining.joining import ClusterRecord, Joiner
from node.joining.promises import Promises
from node.joining.registration import Registration
from node.membership.manager import Membership
from node.peering.build import Peering


class Entry:
    """Of a blank node. It answers what others propose as soon as its port is open."""

    def __init__(self, config: Config, slot: Path, me: NodeId, peers: Peering) -> None:
        self._config, self._slot, self._me, self._peers = config, slot, me, peers
        cluster = config.cluster
        self._promises = Promises(me, slot, cluster.expect, cluster.name, peers.client)
        peers.server.mount([self._promises.route()])

    async def settle(self, departure: Departure | None) -> ClusterRecord:
        """See `Joiner.settle`; `departure` is that of a node whose cluster has ended."""
        if departure is not None:
            self._peers.greeter.hear_of(frozenset(departure.hints))
        joiner = Joiner(
            self._me,
            self._config,
            self._slot,
            self._peers.greeter,
            self._peers.client,
            self._peers.blank.heard,
            self._promises,
            *((departure.left, departure.into) if departure is not None else ()),
        )
        return await joiner.settle()


class Belonging:
    """Of a member. `stop` ends the node when its cluster has ended."""

    def __init__(
        self,
        slot: Path,
        me: Introduction,
        identity: Identity,
        record: ClusterRecord,
        log: Log,
        membership: Membership,
        peers: Peering,
        stop: Callable[[], None],
    ) -> None:
        self._me, self._record, self._peers = me, record, peers
        table, greeter = peers.table, peers.greeter

        def greet_in_turn(foreign: Peer) -> None:
            greeter.hear_of(frozenset(foreign.hints))

        self.gate = MemberGate(peers.blank.hello(), identity, record, table, log, membership, greet_in_turn)
        self.dissolution = Dissolution(slot, record.cluster_id, log, self.gate, greeter, table, stop)
        self.registration = Registration(me.member(record.cluster_id), record, log)

    async def begin(self) -> None:
        """Tell peers; whoever waits for a first member hears of it at once."""
        self._peers.become(self.gate)
        if self._record.genesis == self._me.id:
            self._peers.greeter.tell_all()
        await self._peers.announce()

    def split(self) -> Mapping[NodeId, str]:
        """Members of other clusters under the same secret, with their cluster ids."""
        return self.gate.split(self._peers.greeter.met.values())
