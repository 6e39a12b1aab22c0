"""The room's parts, built in one line: the keeper of epochs, with Ray or without."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from consensus.ports import Log
from consensus.shares import beside
from consensus.state import NodeId
from node.config import Training
from node.epochs.keeper import EpochKeeper
from node.epochs.runtimes import InlineRuntime, RayRuntime, Runtime
from node.hardware import Machine
from node.identity.keyring import Keyring
from node.identity.pki import RayCredentials
from node.processes.children import Supervisor
from training.ray_cluster import RayCluster, RaySettings, object_store_within

MEGABYTE = 1024 * 1024


def keeper(
    config: Training,
    slot: Path,
    me: NodeId,
    address: str,
    machine: Machine,
    cluster_id: str,
    log: Log,
    keyring: Keyring,
    supervisor: Supervisor,
    unseen: Callable[[], Mapping[NodeId, float]],
    child_environment: Mapping[str, str],
) -> EpochKeeper:
    """`address`: this node's own, for its Ray unless another is set; `unseen`: see `EpochKeeper`; `child_environment`:
    what the trainer and its tasks find their agent by."""
    runtime: Runtime = InlineRuntime()
    if config.ray:
        ip = config.ray_ip or address
        settings = RaySettings(
            ip=ip,
            name=me,
            cpus=machine.cores,
            folder=slot / "ray",
            port=config.ray_port,
            environment=child_environment,
            object_store_bytes=_object_store(config, machine, log, me),
        )
        credentials = _credentials(log, keyring, cluster_id, sorted({ip, "127.0.0.1"}))
        runtime = RayRuntime(RayCluster(settings, supervisor), credentials)
    return EpochKeeper(log, runtime, supervisor, unseen, child_environment)


def _object_store(config: Training, machine: Machine, log: Log, me: NodeId) -> Callable[[], int]:
    """What its operator said, or a part of this node's share of memory, whoever is beside it then."""

    def measure() -> int:
        sharers = 1 if machine.memory_is_own else 1 + len(beside(log.state.members.values(), me))
        return config.object_store_mb * MEGABYTE or object_store_within(machine.memory_bytes // sharers)

    return measure


def _credentials(log: Log, keyring: Keyring, cluster_id: str, ips: Sequence[str]) -> Callable[[int], RayCredentials]:
    """Those of an epoch follow from the secret that was in force when it began, on all its nodes."""

    def make(epoch: int) -> RayCredentials:
        authority = keyring.authority_with(log.state.epoch.secret)
        return keyring.identity.ray_credentials(epoch, cluster_id, ips, authority)

    return make
