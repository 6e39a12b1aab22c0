"""This node's share of the Ray cluster of one epoch: starts, watches and ends it as a process tree of its own.

Imports no Ray: everything runs in children, so that the agent stays small and survives whatever Ray does.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from training.epoch import RayRole, RayStatus
from training.ports import Launcher

PROCESS = "ray"
"""Name of the child process and of its log."""
START_SECONDS = 45.0
"""A head takes 2 s and a worker 2 to 3 s here; the rest is for loaded machines."""
POLL_SECONDS = 0.05
TAIL_LINES = 8
LOOPBACK = "127.0.0.1"
WORKER_PORTS = (20000, 20999)
"""Below the range from which Linux takes ports for outgoing connections (32768 and up)."""
OBJECT_STORE_MOST, OBJECT_STORE_LEAST = 256 * 1024 * 1024, 80 * 1024 * 1024
"""Bytes. Ray takes no less than 75 MiB."""
SOCKET_PATH_BYTES = 107
_LONGEST_SOCKET = "/t/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store.1"

_FIXED: Mapping[str, str] = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A driver or worker node that lost its head gives up after this (default 60): its epoch is over.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    # A node that vanished without closing its connections is dead after about 8 s (default 25 s and more).
    "RAY_health_check_initial_delay_ms": "2000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "4",
    # Seconds for which a driver or worker with a wrong token tries again (default 20).
    "RAY_NUM_REDIS_GET_RETRIES": "5",
    # A task that ate the memory of its node is reported, not repeated for ever (the default).
    "RAY_task_oom_retries": "0",
    # Workers that idle for a minute are ended, all of them: each keeps some 200 MB of scikit-learn.
    "RAY_num_workers_soft_limit": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
    # No worker before there is work: Ray would start one for each CPU that a node might have, whatever its share.
    "RAY_prestart_worker_first_driver": "0",
    # One process each that spills and restores objects (default 4): disks do not get faster by more, memory smaller.
    "RAY_max_io_workers": "1",
    # Nobody scrapes Ray's own metrics.
    "RAY_enable_metrics_collection": "0",
    "RAY_BACKEND_LOG_LEVEL": "warning",
    # One task, one thread: what runs in parallel are tasks.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "NUMEXPR_NUM_THREADS": "1",
}


class RayStartError(Exception):
    """Ray did not come up; the message has the end of its log."""


class RayCredentials(Protocol):
    """A leaf certificate for this node's Ray address, and the token of one epoch (`node.identity.pki` makes them)."""

    @property
    def cert_pem(self) -> bytes: ...
    @property
    def key_pem(self) -> bytes: ...
    @property
    def ca_pem(self) -> bytes: ...
    @property
    def token(self) -> str: ...


class RaySettings(msgspec.Struct, frozen=True):
    """`ip`: the address of this node's Ray. Any 127.* means that all nodes are on this host: see `ray_ip`."""

    ip: str
    name: str
    """By which the trainer knows this node among Ray's."""
    cpus: int
    """The most that may ever run here at a time; the trainer keeps to what is this node's share just then."""
    folder: Path
    """Ours alone; emptied at each start. Its real place is elsewhere if the path is too long: see `short_folder`."""
    port: int = 6379
    """Of the head's control store; the six above it are for the other services, 20000 to 20999 for workers.
    On loopback the system chooses all ports, and the announced address tells."""
    environment: Mapping[str, str] = {}
    """Of the processes that run tasks, beside Ray's own."""
    object_store_bytes: Callable[[], int] = lambda: OBJECT_STORE_MOST
    """Told at each start. More than /dev/shm has free, and Ray keeps its objects in a file under `folder`: correct,
    but slow."""


def object_store_within(memory_bytes: int) -> int:
    """How much of a node's memory its object store takes, when nobody says it: what does not fit is spilled to disk."""
    return max(OBJECT_STORE_LEAST, min(OBJECT_STORE_MOST, memory_bytes // 4))


def ray_ip(configured: str) -> str:
    """The address that Ray really uses: only for exactly 127.0.0.1 do its servers listen on loopback alone."""
    return LOOPBACK if configured.startswith("127.") else configured


def ray_environment(folder: Path) -> dict[str, str]:
    """What every process of an epoch needs: head, worker nodes, their tasks, and the trainer.

    `folder` holds what `write_credentials` wrote.
    """
    return {
        **_FIXED,
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "cert.pem"),
        "RAY_TLS_SERVER_KEY": str(folder / "key.pem"),
        "RAY_TLS_CA_CERT": str(folder / "ca.pem"),
        # Explicit: Ray 2.60 may otherwise decide by itself whether it authenticates.
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(folder / "token"),
    }


def ray_command(settings: RaySettings, role: RayRole, address: str, folder: Path) -> list[str]:
    """The command line of the node's launcher process."""
    ip = ray_ip(settings.ip)
    command = [
        *(sys.executable, "-m", "training.ray_node", "--block", "--disable-usage-stats", "--include-log-monitor=false"),
        *(f"--node-ip-address={ip}", f"--node-name={settings.name}", f"--temp-dir={folder / 't'}"),
        *(f"--num-cpus={settings.cpus}", "--num-gpus=0", f"--object-store-memory={settings.object_store_bytes()}"),
        *([] if ip == LOOPBACK else _fixed_ports(settings.port)),
    ]
    if role is RayRole.WORKER:
        return [*command, f"--address={address}"]
    port = 0 if ip == LOOPBACK else settings.port
    return [*command, "--head", f"--port={port}", "--include-dashboard=false", "--no-monitor"]


def _fixed_ports(base: int) -> list[str]:
    services = (
        "object-manager-port",
        "node-manager-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "runtime-env-agent-port",
        "metrics-export-port",
    )
    low, high = WORKER_PORTS
    ports = [f"--{service}={base + number}" for number, service in enumerate(services, 1)]
    return [*ports, f"--min-worker-port={low}", f"--max-worker-port={high}"]


def short_folder(folder: Path) -> Path:
    """`folder`, or a stand-in under the system's temporary folder where Ray's sockets would have too long a path."""
    if len(os.fsencode(str(folder.absolute()) + _LONGEST_SOCKET)) <= SOCKET_PATH_BYTES:
        return folder.absolute()
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:10]
    return Path(tempfile.gettempdir()) / f"parvada-{name}"


def prepare_folder(folder: Path, credentials: RayCredentials) -> None:
    """Empty the folder and write the epoch's credentials. Ray opens its own folders to everybody, so this one is 0700.

    Raises:
        OSError: cannot be written, or belongs to somebody else.
    """
    if folder.is_symlink() or (folder.exists() and folder.stat().st_uid != os.getuid()):
        raise PermissionError(f"{folder} is not ours")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700, parents=True)
    for name, content in (
        ("cert.pem", credentials.cert_pem),
        ("key.pem", credentials.key_pem),
        ("ca.pem", credentials.ca_pem),
        ("token", credentials.token.encode()),
    ):
        with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)


class RayCluster:
    """At most one Ray node at a time. Calls are serialised; a start ends what ran before."""

    def __init__(self, settings: RaySettings, launcher: Launcher) -> None:
        self._settings = settings
        self._launcher = launcher
        self._folder = short_folder(settings.folder)
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._started = RayStatus()

    @property
    def status(self) -> RayStatus:
        process = self._process
        if process is None:
            return RayStatus()
        if process.returncode is None:
            return msgspec.structs.replace(self._started, alive=True)
        return msgspec.structs.replace(self._started, reason=self._reason(process.returncode))

    @property
    def environment(self) -> dict[str, str]:
        """For the trainer on the head: added to its own environment."""
        return ray_environment(self._folder)

    async def start_head(self, epoch: int, credentials: RayCredentials) -> str:
        """Start the head of `epoch` and return the address to announce. Cancelling ends what was started.

        Raises:
            RayStartError: it ended or was not ready in time; nothing of it is left.
        """
        async with self._lock:
            return await self._start(RayStatus(RayRole.HEAD, epoch), credentials)

    async def join(self, epoch: int, address: str, credentials: RayCredentials) -> None:
        """Start a worker node of the head at `address`. Raises as `start_head`: 16 s after a head that is not there,
        so cancel it when the epoch changes."""
        async with self._lock:
            await self._start(RayStatus(RayRole.WORKER, epoch, address), credentials)

    async def stop(self) -> None:
        """End everything of Ray on this node. Never `ray stop`: that ends every Ray of the host."""
        async with self._lock:
            await self._stop()

    async def _start(self, wanted: RayStatus, credentials: RayCredentials) -> str:
        await self._stop()
        try:
            await asyncio.to_thread(prepare_folder, self._folder, credentials)
            await self._launch(wanted)
            address = await self._ready()
        except (OSError, TimeoutError) as error:
            reason = self._reason(None) if isinstance(error, TimeoutError) else str(error)
            await self._stop()
            raise RayStartError(f"the {wanted.role} of epoch {wanted.epoch}: {reason}") from error
        except (RayStartError, asyncio.CancelledError):
            await self._stop()
            raise
        self._started = msgspec.structs.replace(wanted, address=wanted.address or address)
        return self._started.address

    async def _launch(self, wanted: RayStatus) -> None:
        command = ray_command(self._settings, wanted.role, wanted.address, self._folder)
        environment = {**self._settings.environment, **self.environment}
        starting = asyncio.create_task(self._launcher.launch(command, environment, PROCESS), name="ray.launch")
        self._started = wanted
        try:
            self._process = await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._process = await starting  # so that it is found and ended
            raise

    async def _ready(self) -> str:
        """`ray start` writes the control store's address to a file as soon as its node is registered."""
        file = self._folder / "t" / "ray_current_cluster"
        async with asyncio.timeout(START_SECONDS):
            while True:
                if self._process is not None and self._process.returncode is not None:
                    raise RayStartError(self._reason(self._process.returncode))
                with contextlib.suppress(FileNotFoundError):
                    if address := file.read_text().strip():
                        return address
                await asyncio.sleep(POLL_SECONDS)

    async def _stop(self) -> None:
        process, self._process, self._started = self._process, None, RayStatus()
        if process is not None:
            # Nothing of Ray outlives its epoch, so there is nothing to end in order: no grace.
            await self._launcher.kill(process, 0)

    def _reason(self, code: int | None) -> str:
        ended = f"Ray was not ready within {START_SECONDS:.0f} s" if code is None else f"Ray ended with status {code}"
        tail = self._launcher.tail(PROCESS, TAIL_LINES)
        return f"{ended}: {tail}" if tail else ended
