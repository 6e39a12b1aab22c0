"""The room's parts, built in one line: the keeper of epochs, with Ray or without."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from consensus.ports import Log
from consensus.state import NodeId
from node.config import Config
from node.epochs.keeper import EpochKeeper
from node.epochs.runtimes import Engine, InlineEngine, RayEngine
from node.identity.keyring import Keyring
from node.identity.pki import RayCredentials
from node.processes.children import Supervisor
from training.ray_cluster import RayCluster, RaySettings

MEGABYTE = 1024 * 1024


def keeper(
    config: Config,
    slot: Path,
    address: str,
    cluster_id: str,
    log: Log,
    keyring: Keyring,
    supervisor: Supervisor,
    unseen: Callable[[], Mapping[NodeId, float]],
    trainer_environment: Mapping[str, str],
) -> EpochKeeper:
    """`address`: this node's own, for its Ray unless another is set; `unseen`, `trainer_environment`: see
    `EpochKeeper`."""
    engine: Engine = InlineEngine()
    if config.training.ray:
        ip = config.training.ray_ip or address
        settings = RaySettings(
            ip=ip,
            cpus=config.cpus,
            folder=slot / "ray",
            port=config.training.ray_port,
            object_store_bytes=config.training.object_store_mb * MEGABYTE,
        )
        credentials = _credentials(log, keyring, cluster_id, sorted({ip, "127.0.0.1"}))
        engine = RayEngine(RayCluster(settings, supervisor), credentials)
    return EpochKeeper(log, engine, supervisor, unseen, trainer_environment)


def _credentials(log: Log, keyring: Keyring, cluster_id: str, ips: Sequence[str]) -> Callable[[int], RayCredentials]:
    """Those of an epoch follow from the secret that was in force when it began, on all its nodes."""

    def make(epoch: int) -> RayCredentials:
        authority = keyring.authority_with(log.state.epoch.secret)
        return keyring.identity.ray_credentials(epoch, cluster_id, ips, authority)

    return make
