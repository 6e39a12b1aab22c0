"""What a node runs once it belongs to a cluster: stores, repair, epochs, membership, the local API and the fronts.

Built in a straight line, a reason a step; stopped in reverse order. `node.agent` brings the node to where this starts.
"""

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
from aiohttp import web

import parvada
from consensus.ports import Log
from consensus.state import NodeId
from node import logs
from node.blobs.distribute import Distributor
from node.blobs.pace import Pace
from node.blobs.replicator import Replicator
from node.blobs.scrub import Scrubber
from node.blobs.store import BlobStore
from node.blobs.transfer import Transfer
from node.config import Config
from node.epochs.keeper import EpochKeeper
from node.epochs.runtimes import Engine, InlineEngine, RayEngine
from node.http.app import make_app
from node.http.context import Ports, Settings
from node.identity.keyring import Keyring
from node.identity.pki import Identity, RayCredentials
from node.joining.joining import ClusterRecord
from node.joining.slot import Slot, run_dir
from node.local.api import LocalApi, serve
from node.local.serving_view import ViewBuilder
from node.local.view_feed import ViewFeed
from node.membership.leadership import Leadership
from node.membership.manager import Membership
from node.membership.rotation import Rotator
from node.peering.client import PeerClient
from node.processes.children import Child, Supervisor
from node.processes.workshop import Workshop
from node.tasks import Tasks
from node.telemetry.telemetry import Telemetry
from training.ray_cluster import RayCluster, RaySettings

MEGABYTE = 1024 * 1024
FRONT_GRACE_SECONDS = 10.0

_log = logs.get("services")


class Foundation(msgspec.Struct, frozen=True):
    """What exists before a node belongs to anything."""

    config: Config
    name: str
    slot: Slot
    identity: Identity
    blobs: BlobStore
    client: PeerClient
    supervisor: Supervisor
    tasks: Tasks
    keyring: Keyring
    rotation: Rotator
    address: str
    leadership: Leadership
    removed: asyncio.Event
    split: Callable[[], Mapping[NodeId, str]]
    """See `node.joining.gate`."""


class Services:
    """All parts of a member. `start` and `stop` once each."""

    def __init__(self, base: Foundation, record: ClusterRecord, log: Log, membership: Membership) -> None:
        self._base = base
        self._log = log
        self._membership = membership
        self._socket = run_dir(base.slot) / "agent.sock"
        self._fronts: list[Child] = []
        self._local: web.AppRunner | None = None
        self._working: asyncio.Task[None] | None = None
        config, me = base.config, base.identity.id

        # Bytes: who holds what, and how it gets there.
        transfer = self._transfer = Transfer(me, base.blobs, base.client)
        distributor = Distributor(me, log, base.blobs, transfer, config.storage.copies)
        self.replicator = Replicator(
            me,
            log,
            base.blobs,
            transfer,
            config.storage.copies,
            time.monotonic,
            config.storage.grace_seconds,
            Pace(config.storage.repair_mb_per_second * MEGABYTE, time.monotonic),
        )
        self._workshop = Workshop(base.supervisor)

        # What people and children see.
        self._telemetry = Telemetry(
            me,
            base.name,
            parvada.__version__,
            log,
            base.blobs,
            config.storage.data,
            base.supervisor.pids,
            lambda: self.replicator.owed,
            lambda: self._epochs.ray_epoch,
        )
        keyring = base.keyring
        self._views = ViewFeed(log, ViewBuilder(me, config.client.auth, lambda: keyring.admin_sha256s))
        tmp = base.slot.path / "tmp"
        local = LocalApi(log, self._views, base.blobs, transfer, distributor, self._telemetry, tmp)
        settings = Settings(
            node=me,
            auth=config.client.auth,
            admin_sha256s=lambda: keyring.admin_sha256s,
            tmp=tmp,
            token_seeds=lambda: keyring.token_seeds,
            max_upload_bytes=config.client.max_upload_mb * MEGABYTE,
            formation=record.formation,
            mode="ray" if config.training.ray else "inline",
            copies=config.storage.copies,
        )
        ports = Ports(
            log,
            self._workshop,
            base.blobs,
            distributor,
            local,
            self._telemetry,
            base.leadership,
            base.rotation,
            settings,
            base.removed,
            self.replicator.lost,
            base.split,
        )
        self._app = make_app(ports, local.routes())
        self._app.on_shutdown.append(local.end_streams)

        # Work: the epoch's share of this node.
        self._epochs = EpochKeeper(
            log, self._engine(record), base.supervisor, membership.seen_ages, self._child_environment()
        )

    def _engine(self, record: ClusterRecord) -> Engine:
        config = self._base.config
        if not config.training.ray:
            return InlineEngine()
        ip = config.training.ray_ip or self._base.address
        settings = RaySettings(
            ip=ip,
            cpus=config.cpus,
            folder=self._base.slot.path / "ray",
            port=config.training.ray_port,
            object_store_bytes=config.training.object_store_mb * MEGABYTE,
        )
        cluster = RayCluster(settings, self._base.supervisor)
        return RayEngine(cluster, self._ray_credentials(record.cluster_id, sorted({ip, "127.0.0.1"})))

    def _ray_credentials(self, cluster_id: str, ips: Sequence[str]) -> Callable[[int], RayCredentials]:
        """Those of an epoch follow from the secret that was in force when it began, on all its nodes."""

        def make(epoch: int) -> RayCredentials:
            authority = self._base.keyring.authority_with(self._log.state.epoch.secret)
            return self._base.identity.ray_credentials(epoch, cluster_id, ips, authority)

        return make

    def _child_environment(self) -> Mapping[str, str]:
        return {
            "PARVADA_LOCAL_SOCKET": str(self._socket),
            "PARVADA_NODE_ID": self._base.identity.id,
            "PARVADA_TMP": str(self._base.slot.path / "tmp"),
            "PARVADA_CPUS": str(self._base.config.cpus),
        }

    async def start(self) -> None:
        await asyncio.to_thread(_make_empty, self._base.slot.path / "tmp")
        # The socket first: fronts and trainer dial it as soon as they live.
        self._socket.unlink(missing_ok=True)
        self._local = await serve(self._app, self._socket)
        for coroutine, name in (
            (self._views.run(), "views"),
            (self._telemetry.run(), "telemetry"),
            (self.replicator.run(), "replicator"),
            (self._scrubbing(), "scrub"),
            (self._membership.run(), "membership"),
            (self._workshop.close_idle(), "workshop"),
        ):
            self._base.tasks.start(coroutine, name)
        self._working = self._base.tasks.start(self._epochs.run(), "epochs")
        client = self._base.config.client
        environment = {
            **self._child_environment(),
            "PARVADA_HOST": client.host,
            "PARVADA_PORT": str(client.port),
            "PARVADA_AUTH": client.auth,
            "PARVADA_MAX_PREDICT_MB": str(client.max_predict_mb),
            "PARVADA_MAX_PREDICT_VALUES": str(client.max_predict_values),
        }
        for number in range(1, self._base.config.fronts + 1):
            argv = [sys.executable, "-m", "serving"]
            front = self._base.supervisor.spawn(argv, environment, f"front-{number}", grace=FRONT_GRACE_SECONDS)
            self._fronts.append(front)

    async def _scrubbing(self) -> None:
        hours = self._base.config.storage.scrub_hours
        if not hours:
            await asyncio.Event().wait()  # switched off: a root task must not end
        await Scrubber(self._base.blobs, hours * 3600, self.replicator.poke).run()

    async def stop_work(self) -> None:
        """Before the node says goodbye: its share of the training ends at once, its predictions go on."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.wait([self._working])
        await self._epochs.stop()

    async def stop(self) -> None:
        """After the node's tasks have ended."""
        await self._workshop.stop()
        await self._transfer.stop()
        if self._local is not None:
            await self._local.cleanup()


def _make_empty(folder: Path) -> None:
    """Uploads that a crash broke off have left their files: nobody comes back for them."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
