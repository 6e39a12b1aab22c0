"""The composition root of a node: builds every object once, in a straight line, and stops them in reverse order."""

import asyncio
import os
import signal

from consensus.log.raft import RaftConfig, RaftLog
from consensus.state import ClusterState, NodeId
from discovery.peer import Peer
from discovery.watcher import Watcher
from node import config as configuration, interpreter, logs
from node.blobs.room import MEGABYTE, Limits as BlobLimits
from node.blobs.routes import BlobRoutes
from node.blobs.store import BlobStore
from node.config import Config
from node.identity.keyring import Keyring
from node.identity.pki import NodeKey
from node.identity.ring import RingStore
from node.joining.dissolution import EXIT_AGAIN, Dissolution, carry_out
from node.joining.gate import NodeGate
from node.joining.introduction import blank_peer, own_member
from node.joining.joining import ClusterRecord, Joiner, note_log, require_log
from node.joining.promises import Promises
from node.joining.registration import Registration, say_goodbye
from node.joining.slot import Slot, claim
from node.membership.leadership import Leadership
from node.membership.manager import Membership
from node.membership.removal import EXIT_REMOVED, Removal
from node.membership.rotation import Rotator
from node.membership.voters import Limits
from node.net import own_address
from node.peering.client import PeerClient
from node.peering.greeter import Greeter
from node.peering.server import PeerApi
from node.peering.sources import multicast, seeds
from node.peering.table import PeerTable
from node.processes.children import Supervisor
from node.services import Foundation, Services
from node.tasks import Tasks

RENEW_CHECK_SECONDS = 60.0

_log = logs.get("agent")


def main() -> int:
    """Run a node until SIGTERM or SIGINT; returns the exit code."""
    config = configuration.load(os.environ)
    logs.configure(config.logging.format, config.logging.level)
    interpreter.tune()
    slot = claim(config.storage.data, config.storage.slot)
    try:
        while (code := asyncio.run(Agent(config, slot).run())) == EXIT_AGAIN:
            pass  # its cluster has ended: as a blank node it joins the other
        return code
    finally:
        slot.release()


class Agent:
    """One node, from its first greeting to its last."""

    def __init__(self, config: Config, slot: Slot) -> None:
        self._config = config
        self._slot = slot
        self._name = config.cluster.node_name or f"node-{slot.number}"
        self._address = config.peers.advertise or own_address()
        self._stop = asyncio.Event()
        self._failed = self._told_to_stop = False
        self._log: RaftLog | None = None
        self._registration: asyncio.Task[None] | None = None

        # Who we are. The CA follows from the secret (two, while it is rotated), the node's id from its own key.
        store = RingStore(slot.path, config.secret_path, owned=config.storage.secret_file is None)
        key = NodeKey.load_or_make(slot.path / "key.pem")
        self._keyring = Keyring(store, key, sorted({self._address, "127.0.0.1"}), revoked=self._is_revoked)
        self._identity = self._keyring.identity

        # What runs for this node, and what must not outlive it.
        self._tasks = Tasks(self._on_failure)
        self._supervisor = Supervisor(slot.path / "logs", self._on_failure)
        storage = config.storage
        limits = BlobLimits(storage.disk_quota_mb * MEGABYTE, storage.disk_reserve_mb * MEGABYTE)
        self._blobs = BlobStore(slot.path / "blobs", limits)

        # How peers are found and reached.
        blank = blank_peer(config, self._identity.id, self._address, self._identity.fingerprint)
        self._table = PeerTable(self._identity.id)
        self._removal = Removal(self._identity.id, slot.path, self._stop.set)
        self._client = PeerClient(self._identity, self._table)
        self._gate = NodeGate(blank, self._table, self._heard_news, self._heard_of_foreign)
        self._leadership = Leadership(self._client)
        self._promises = Promises(
            self._identity.id, slot.path, config.cluster.expect, config.cluster.name, self._client
        )
        self._rotation = Rotator(self._identity.id, self._keyring, self._client, self._keys_changed)
        routes = [
            *self._leadership.routes(),
            self._promises.route(),
            *self._rotation.routes(),
            *BlobRoutes(self._blobs, self._gate.repair).routes(),
        ]
        self._peer_api = PeerApi(self._identity, self._table, self._gate, routes)
        self._mdns = multicast(config.peers, blank, self._identity)
        self._watcher = Watcher([*seeds(config.peers), *([self._mdns] if self._mdns is not None else [])])
        self._greeter = Greeter(
            self._client,
            self._table,
            self._watcher,
            self._gate.hello,
            self._connected,
            self._update_peers,
            self._removal.of_this_node,
        )
        self._dissolution = Dissolution(slot.path, self._gate, self._greeter, self._table, self._stop.set)

    @property
    def _me(self) -> NodeId:
        return self._identity.id

    # ---------------------------------------------------------------- life
    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        logs.bind(node=self._name)
        _log.info("node.starting", id=self._me, slot=str(self._slot.path), address=self._address)
        starting = asyncio.create_task(self._start(), name="start")
        stopping = asyncio.create_task(self._stop.wait(), name="stop")
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        services: Services | None = None
        if starting.done() and not starting.cancelled():
            try:
                services = starting.result()
            except Exception:  # the start failed: say why, and end with what was built so far
                _log.exception("node.cannot_start")
                self._failed = True
            else:
                await stopping
        starting.cancel()
        stopping.cancel()
        await self._shut_down(services)
        if self._removal.happened.is_set():
            return EXIT_REMOVED
        return 1 if self._failed else EXIT_AGAIN if self._dissolution.happened and not self._told_to_stop else 0

    def _end(self) -> None:
        self._told_to_stop = True
        self._stop.set()

    async def _start(self) -> Services:
        await asyncio.to_thread(self._blobs.open)
        departure = carry_out(self._slot.path)
        # Peers may greet us from here on, whatever we turn out to be.
        await self._peer_api.start(self._config.peers.host, self._config.peers.port)
        await self._watcher.start()
        if departure is not None:
            self._greeter.hear_of(frozenset(departure.hints))
        self._tasks.start(self._greeter.run(), "greeter")
        self._tasks.start(self._keep_certificate(), "certificate")
        joiner = Joiner(
            self._me,
            self._config,
            self._slot.path,
            self._greeter,
            self._client,
            self._gate.heard,
            self._promises,
            *((departure.left, departure.into) if departure is not None else ()),
        )
        record = await joiner.settle()
        # The log: from here on we are part of the cluster.
        require_log(self._slot.path)
        log = self._make_log(record)
        await log.start()
        note_log(self._slot.path)
        self._log = log
        membership = Membership(log, self._limits())
        self._gate.belongs(record, log, membership)
        self._leadership.belongs(log, membership)
        self._rotation.belongs(log, log, self._config.cluster.handover)
        self._update_peers()
        if record.genesis == self._me:
            self._greeter.tell_all()
        if self._mdns is not None:
            await self._mdns.update(self._gate.hello())
        self._tasks.start(self._follow_members(log), "members")
        self._tasks.start(self._rotation.run(), "rotation")
        self._tasks.start(self._dissolution.run(log, record.cluster_id), "dissolution")
        member = own_member(self._config, self._me, self._name, self._address)
        self._registration = self._tasks.start(Registration(member, record, log).run(), "registration")
        services = Services(self._foundation(), record, log, membership)
        await services.start()
        return services

    async def _shut_down(self, services: Services | None) -> None:
        """In reverse. Work ends first and the vote is handed on, while fronts still answer; then everything else."""
        _log.info("node.stopping")
        if self._registration is not None:
            self._registration.cancel()  # a node that says goodbye must not register itself again
        if services is not None:
            await services.stop_work()
            leaves = self._removal.happened.is_set() or self._dissolution.happened
            if not self._failed and not leaves and self._log is not None:
                await say_goodbye(self._log, self._gate, self._client)
        await self._watcher.stop()
        # Children before what they call; the fronts finish the requests they have.
        await self._supervisor.stop()
        await self._tasks.stop()
        if services is not None:
            await services.stop()
        if self._log is not None:
            await self._log.stop()
        await self._peer_api.stop()
        await self._client.close()
        _log.info("node.stopped")

    def _on_failure(self, name: str, error: BaseException | None) -> None:
        """A root task that ends takes the node down in order: half a node would be worse than none."""
        _log.error("node.failed", task=name, reason=str(error) if error else "it ended")
        self._failed = True
        self._stop.set()

    # ---------------------------------------------------------------- parts
    def _make_log(self, record: ClusterRecord) -> RaftLog:
        raft = RaftConfig(
            me=self._me,
            cluster_id=record.cluster_id,
            genesis=record.genesis,
            directory=self._slot.path / "raft",
            host=self._config.peers.host,
            port=self._config.peers.raft_port,
        )
        return RaftLog(
            raft,
            self._identity.server_context(),
            self._identity.client_context(),
            self._identity.identify,
            ClusterState(),
        )

    def _limits(self) -> Limits:
        cluster = self._config.cluster
        return Limits(cluster.max_voters, cluster.promote_after, cluster.away_after)

    def _foundation(self) -> Foundation:
        return Foundation(
            config=self._config,
            name=self._name,
            slot=self._slot,
            identity=self._identity,
            blobs=self._blobs,
            client=self._client,
            supervisor=self._supervisor,
            tasks=self._tasks,
            keyring=self._keyring,
            rotation=self._rotation,
            address=self._address,
            leadership=self._leadership,
            removed=self._removal.happened,
            split=lambda: self._gate.split(self._greeter.met.values()),
        )

    # ---------------------------------------------------------------- peers
    def _is_revoked(self, node: NodeId) -> bool:
        return self._log is not None and node in self._log.state.revoked

    def _connected(self) -> frozenset[NodeId]:
        return frozenset(self._log.status.connected) if self._log is not None else frozenset()

    def _heard_news(self) -> None:
        """A peer has told us something: Raft may connect to it, and if it is a member now, we want to join."""
        self._update_peers()
        self._greeter.look_again()

    def _heard_of_foreign(self, peer: Peer) -> None:
        """A member of another cluster has found this node: greeted in turn, it says how its cluster stands."""
        self._greeter.hear_of(frozenset(peer.hints))

    def _update_peers(self) -> None:
        if self._log is not None:
            self._log.set_peers(self._table.raft_peers())

    async def _follow_members(self, log: RaftLog) -> None:
        """The peer table follows the log: who is a member, where it said it was, who is revoked."""
        members = None
        async for item in log.subscribe():
            if item.state.members is not members:
                members = item.state.members
                self._table.follow(item.state, self._identity.fingerprint)
                self._update_peers()
            await self._removal.follow(item.state, log, self._peer_api, self._client)

    async def _keys_changed(self) -> None:
        """This node presents, or trusts, other certificates than before."""
        self._gate.present(self._identity.fingerprint)
        await self._client.renew()
        if self._mdns is not None:
            self._mdns.trust(self._identity.fingerprints)
            await self._mdns.update(self._gate.hello())

    async def _keep_certificate(self) -> None:
        while True:
            await asyncio.sleep(RENEW_CHECK_SECONDS)
            if self._identity.renew_if_due():
                _log.info("certificate.renewed")
