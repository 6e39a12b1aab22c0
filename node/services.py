"""What a node runs once it belongs to a cluster: its log, and the rooms that go by it.

Built in a straight line, a room a step; stopped in reverse order. `node.agent` brings the node to where this starts.
"""

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

import parvada
from consensus.log.raft import RaftConfig, RaftLog
from consensus.shares import cpu_shares
from consensus.state import ClusterState
from node.blobs.build import Bytes
from node.blobs.store import BlobStore
from node.config import Config
from node.epochs import build as epochs
from node.http.app import make_app
from node.http.context import Ports, Settings
from node.identity.keyring import Keyring
from node.jobs.archivist import Archivist
from node.jobs.results import Results
from node.joining.build import Belonging
from node.joining.introduction import Introduction
from node.joining.joining import ClusterRecord, note_log, require_log
from node.joining.registration import say_goodbye
from node.joining.slot import Slot, run_dir
from node.local.api import serve
from node.local.build import Local
from node.membership.build import Members
from node.membership.removal import Removal
from node.peering.build import Peering
from node.processes.children import Supervisor
from node.processes.fronts import Fronts
from node.processes.workshop import WORKSHOP
from node.tasks import Tasks
from node.telemetry.live import LiveFits
from node.telemetry.telemetry import Telemetry
from training.pool import Pool

MEGABYTE = 1024 * 1024


class Foundation(msgspec.Struct, frozen=True):
    """What exists before a node belongs to anything."""

    config: Config
    slot: Slot
    me: Introduction
    keyring: Keyring
    peers: Peering
    blobs: BlobStore
    supervisor: Supervisor
    tasks: Tasks
    removal: Removal
    stop: Callable[[], None]
    """Ends the node."""


class Services:
    """All parts of a member. `start` once, then `stop_work` and `stop`."""

    def __init__(self, base: Foundation, record: ClusterRecord) -> None:
        self._base = base
        config, me, slot, peers = base.config, base.me, base.slot.path, base.peers
        self._socket, tmp = run_dir(base.slot) / "agent.sock", slot / "tmp"
        self._environment = {
            "PARVADA_LOCAL_SOCKET": str(self._socket),
            "PARVADA_NODE_ID": me.id,
            "PARVADA_TMP": str(tmp),
            "PARVADA_CPUS": str(me.machine.cores),
        }

        # The log, who takes part in it, and what this node is to its peers.
        self._log = log = _make_log(base, record)
        self._members = Members(config.cluster, log, base.keyring, peers, base.removal)
        self._belonging = Belonging(
            slot, me, base.keyring.identity, record, log, self._members.manager, peers, base.stop
        )
        # Bytes: who holds what, and how it gets there.
        self._bytes = Bytes(config.storage, me.id, log, base.blobs, peers)
        # Work: heavy calls of the API, and the epoch's share of this node.
        self._workshop = Pool(base.supervisor, WORKSHOP)
        self._epochs = epochs.keeper(
            config.training,
            slot,
            me.id,
            me.address,
            me.machine,
            record.cluster_id,
            log,
            base.keyring,
            base.supervisor,
            self._members.manager.seen_ages,
            self._environment,
        )
        # What people and children see.
        self._telemetry = Telemetry(
            me.id,
            me.name,
            parvada.__version__,
            log,
            base.blobs,
            config.storage.data,
            base.supervisor.pids,
            lambda: self._bytes.replicator.owed,
            lambda: self._epochs.ray_epoch,
        )
        self._live = LiveFits()
        peers.server.mount(self._live.routes())
        self._local = Local(config.client, me.id, log, self._admins, self._bytes, self._telemetry, self._live, tmp)
        # Jobs that have ended.
        self._archivist = Archivist(
            log,
            base.blobs,
            self._bytes.distributor,
            self._local.api.make_present,
            self._workshop,
            tmp,
            config.training.jobs_kept,
        )
        self._app = make_app(self._ports(record, tmp), self._local.api.routes())
        self._app.on_shutdown.append(self._local.api.end_streams)

        self.up = False
        """Whether all of it has started."""
        self._work: list[asyncio.Task[None]] = []
        self._ending = contextlib.AsyncExitStack()

    def _admins(self) -> Sequence[str]:
        return self._base.keyring.admin_sha256s

    def _ports(self, record: ClusterRecord, tmp: Path) -> Ports:
        config, keyring = self._base.config, self._base.keyring
        settings = Settings(
            node=self._base.me.id,
            auth=config.client.auth,
            admin_sha256s=self._admins,
            tmp=tmp,
            token_seeds=lambda: keyring.token_seeds,
            max_upload_bytes=config.client.max_upload_mb * MEGABYTE,
            formation=record.formation,
            mode="ray" if config.training.ray else "inline",
            copies=config.storage.copies,
        )
        return Ports(
            log=self._log,
            workshop=self._workshop,
            blobs=self._base.blobs,
            distributor=self._bytes.distributor,
            fetcher=self._local.api,
            results=Results(self._local.api.make_present, self._workshop),
            telemetry=self._telemetry,
            leadership=self._members.leadership,
            rotation=self._members.rotation,
            settings=settings,
            removed=self._base.removal.happened,
            live=self._live,
            peers=self._base.peers.client,
            lost=self._bytes.replicator.lost,
            split=self._belonging.split,
        )

    async def start(self) -> None:
        """Raises CannotStart, and whatever keeps the log from starting."""
        tasks, slot = self._base.tasks, self._base.slot.path
        # The log: from here on this node is part of the cluster.
        require_log(slot)
        await self._log.start()
        self._ending.push_async_callback(self._log.stop)
        note_log(slot)
        self._base.keyring.revoke(self._log.state.revoked)
        await self._belonging.begin()
        self._members.start(tasks)
        tasks.start(self._belonging.dissolution.run(), "dissolution")
        self._work.append(tasks.start(self._belonging.registration.run(), "registration"))
        # The socket before those that dial it as soon as they live: fronts and trainer.
        await asyncio.to_thread(_make_empty, slot / "tmp")
        self._socket.unlink(missing_ok=True)
        self._ending.push_async_callback((await serve(self._app, self._socket)).cleanup)
        self._local.start(tasks)
        tasks.start(self._telemetry.run(), "telemetry")
        self._bytes.start(tasks)
        self._ending.push_async_callback(self._bytes.stop)
        tasks.start(self._workshop.close_idle(), "workshop")
        self._ending.push_async_callback(self._workshop.stop)
        tasks.start(self._archivist.run(), "archivist")
        self._work.append(tasks.start(self._epochs.run(), "epochs"))
        fronts = Fronts(self._base.supervisor, self._base.config.client, self._environment, self._share)
        self._work.append(tasks.start(fronts.run(), "fronts"))
        self.up = True

    def _share(self) -> int:
        """Of its machine's cores. Until this node is registered it does not know who is beside it."""
        return cpu_shares(self._log.state.members.values()).get(self._base.me.id, 1)

    @property
    def dissolved(self) -> bool:
        """Whether this node's cluster has ended in favour of another."""
        return self._belonging.dissolution.happened

    async def stop_work(self) -> None:
        """Before the node says goodbye: it registers itself no more and its share of the training ends at once, while
        its predictions go on, with the fronts that there are."""
        for task in self._work:
            task.cancel()
        await asyncio.wait(self._work)
        await self._epochs.stop()

    async def say_goodbye(self) -> None:
        await say_goodbye(self._log, self._belonging.gate, self._base.peers.client)

    async def stop(self) -> None:
        """After the node's tasks have ended."""
        await self._ending.aclose()


def _make_log(base: Foundation, record: ClusterRecord) -> RaftLog:
    peers, identity = base.config.peers, base.keyring.identity
    raft = RaftConfig(
        me=identity.id,
        cluster_id=record.cluster_id,
        genesis=record.genesis,
        directory=base.slot.path / "raft",
        host=peers.host,
        port=peers.raft_port,
    )
    return RaftLog(raft, identity.server_context(), identity.client_context(), identity.identify, ClusterState())


def _make_empty(folder: Path) -> None:
    """Uploads that a crash broke off have left their files: nobody comes back for them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
