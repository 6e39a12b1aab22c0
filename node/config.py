"""The node's configuration: one frozen struct by concern, read once from the environment.

Every variable starts with `PARVADA_`. An unknown one is refused with the nearest known name, so that a typing
error never passes for a default.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from parvada.nearest import nearest

PREFIX = "PARVADA_"

# Read by the command line, by children or by Compose itself, not by the agent; known, so not refused.
_OTHERS = frozenset(
    {"URL", "TOKEN", "TOKEN_FILE", "LOCAL_SOCKET", "NODE_ID", "EPOCH", "TMP", "IMAGE", "BIND", "PORTS", "HOME", "NODES"}
)


class ConfigError(ValueError):
    """A variable that is unknown or has a value that makes no sense; the message names it."""


class Storage(msgspec.Struct, frozen=True):
    """Where this node keeps what it knows."""

    data: Path = Path("/var/lib/parvada")
    """Shared by all nodes of one host (a volume in Compose): secret, genesis, slots."""
    slot: int | None = None
    """Number of this node's folder; by default the replica number that Docker's DNS tells, else the first free."""
    secret_file: Path | None = None
    """The cluster secret; by default `secret` in the data folder."""
    shared: bool = True
    """Whether the data folder is what all nodes of the cluster share, so that it may arbitrate who forms."""
    copies: int = 3
    """On how many nodes a blob is kept: two may be lost before the last copy is."""
    scrub_hours: float = 24.0
    """In how many hours every blob of this node is read again and compared with its digest; 0 = never."""
    disk_quota_mb: int = 0
    """How much the blobs of this node may take together; 0 = as much as the disk has."""
    disk_reserve_mb: int = 256
    """Free disk that uploads and copies leave to the log: its journal and snapshots under load, and some air."""
    repair_mb_per_second: float = 32.0
    """The most that this node pulls to have enough copies of everything, so that it still serves: a quarter of a
    gigabit link, half of an old disk. 0 = no bound. What is served or asked for comes at full speed."""
    grace_seconds: float = 600.0
    """How long a blob that nothing refers to any more stays: uploads send theirs well before they are committed."""


class Client(msgspec.Struct, frozen=True):
    """The client port."""

    host: str = "0.0.0.0"
    """Address to bind. In a container all of them; Compose publishes it on the host's loopback only."""
    port: int = 8080
    fronts: int = 0
    """Processes that share the port; 0 = one for each of the node's cores, at most four."""
    auth: Literal["writes", "all"] = "writes"
    """What needs a token: writes only (reads and predictions are open), or everything."""
    max_upload_mb: int = 4096
    max_predict_mb: int = 64
    max_predict_values: int = 1_000_000
    """Cells (rows times columns) of one prediction request: beyond, a batch job is the better way."""


class Peers(msgspec.Struct, frozen=True):
    """How nodes find and reach one another."""

    host: str = "0.0.0.0"
    port: int = 7443
    raft_port: int = 7444
    advertise: str = ""
    """The address that others dial; by default that of the interface with the default route."""
    seeds: tuple[str, ...] = ()
    """`host`, `host:port` or DNS names, for networks without multicast."""
    mdns: bool = True
    mdns_interface: str = ""
    """Address of the interface for mDNS; by default the advertised one."""


class Cluster(msgspec.Struct, frozen=True):
    """Formation and membership."""

    name: str = "parvada"
    node_name: str = ""
    """Shown to people; by default `node-SLOT`."""
    expect: int = 0
    max_voters: int = 5
    """Odd. More voters survive more deaths, and every write waits for a majority of them."""
    promote_after: float = 5.0
    """Seconds for which a learner must have been caught up before it becomes a voter."""
    quiet: float = 5.0
    """Seconds without a new peer before a lone cluster forms, where nothing arbitrates."""
    away_after: float = 60.0
    """Seconds unseen before a member's share of blobs moves and its place as a voter may be taken."""
    handover: float = 3.0
    """Seconds for the other nodes to dial anew, before connections of a secret that is replaced are cut."""


class Training(msgspec.Struct, frozen=True):
    """This node's share of the work."""

    ray: bool = True
    """Off: trials run in this node's own processes when it holds the epoch, without Ray."""
    ray_ip: str = ""
    """Address of this node's Ray; by default the advertised one."""
    ray_port: int = 6379
    cpus: int = 0
    """How many folds run here at a time; 0 = as many as this node's share of its machine has cores. Nodes that have the
    same cores (containers of one host, processes of one user) share them, unless they are told a number."""
    object_store_mb: int = 0
    """Memory of Ray's object store; 0 = a quarter of this node's share of its machine's, at most 256."""
    jobs_kept: int = 1000
    """So many ended jobs are kept; beyond, the oldest go by themselves, but for those whose model an alias names."""


class Logging(msgspec.Struct, frozen=True):
    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Config(msgspec.Struct, frozen=True):
    storage: Storage
    client: Client
    peers: Peers
    cluster: Cluster
    training: Training
    logging: Logging

    @property
    def secret_path(self) -> Path:
        return self.storage.secret_file or self.storage.data / "secret"


# variable -> (concern, field)
_VARIABLES: dict[str, tuple[str, str]] = {
    "DATA": ("storage", "data"),
    "SLOT": ("storage", "slot"),
    "SECRET_FILE": ("storage", "secret_file"),
    "SHARED": ("storage", "shared"),
    "COPIES": ("storage", "copies"),
    "SCRUB_HOURS": ("storage", "scrub_hours"),
    "DISK_QUOTA_MB": ("storage", "disk_quota_mb"),
    "DISK_RESERVE_MB": ("storage", "disk_reserve_mb"),
    "REPAIR_MB_PER_SECOND": ("storage", "repair_mb_per_second"),
    "GRACE_SECONDS": ("storage", "grace_seconds"),
    "HOST": ("client", "host"),
    "PORT": ("client", "port"),
    "FRONTS": ("client", "fronts"),
    "AUTH": ("client", "auth"),
    "MAX_UPLOAD_MB": ("client", "max_upload_mb"),
    "MAX_PREDICT_MB": ("client", "max_predict_mb"),
    "MAX_PREDICT_VALUES": ("client", "max_predict_values"),
    "PEER_HOST": ("peers", "host"),
    "PEER_PORT": ("peers", "port"),
    "RAFT_PORT": ("peers", "raft_port"),
    "ADVERTISE": ("peers", "advertise"),
    "SEEDS": ("peers", "seeds"),
    "MDNS": ("peers", "mdns"),
    "MDNS_INTERFACE": ("peers", "mdns_interface"),
    "NAME": ("cluster", "name"),
    "NODE_NAME": ("cluster", "node_name"),
    "EXPECT": ("cluster", "expect"),
    "MAX_VOTERS": ("cluster", "max_voters"),
    "PROMOTE_AFTER_SECONDS": ("cluster", "promote_after"),
    "QUIET_SECONDS": ("cluster", "quiet"),
    "AWAY_AFTER_SECONDS": ("cluster", "away_after"),
    "HANDOVER_SECONDS": ("cluster", "handover"),
    "RAY": ("training", "ray"),
    "RAY_ADDRESS_IP": ("training", "ray_ip"),
    "RAY_PORT": ("training", "ray_port"),
    "CPUS": ("training", "cpus"),
    "OBJECT_STORE_MB": ("training", "object_store_mb"),
    "JOBS_KEPT": ("training", "jobs_kept"),
    "LOG_FORMAT": ("logging", "format"),
    "LOG_LEVEL": ("logging", "level"),
}

_CONCERNS: dict[str, type[msgspec.Struct]] = {
    "storage": Storage,
    "client": Client,
    "peers": Peers,
    "cluster": Cluster,
    "training": Training,
    "logging": Logging,
}

# The least and the most that a number may be; what the fronts would refuse is refused here, once.
_RANGES: dict[str, tuple[int, int | None]] = {
    "COPIES": (1, None),
    "SCRUB_HOURS": (0, None),
    "DISK_QUOTA_MB": (0, None),
    "DISK_RESERVE_MB": (0, None),
    "REPAIR_MB_PER_SECOND": (0, None),
    "GRACE_SECONDS": (0, None),
    "FRONTS": (0, None),
    "MAX_UPLOAD_MB": (1, None),
    "MAX_PREDICT_MB": (1, 4096),
    "MAX_PREDICT_VALUES": (1, 10**9),
    "EXPECT": (0, None),
    "PROMOTE_AFTER_SECONDS": (0, None),
    "QUIET_SECONDS": (0, None),
    "AWAY_AFTER_SECONDS": (0, None),
    "HANDOVER_SECONDS": (0, None),
    "CPUS": (0, None),
    "OBJECT_STORE_MB": (0, None),
    "JOBS_KEPT": (0, None),
}

_SWITCH = {"on": True, "off": False, "1": True, "0": False, "true": True, "false": False, "yes": True, "no": False}


def load(environment: Mapping[str, str]) -> Config:
    """Read every `PARVADA_` variable of `environment`.

    Raises:
        ConfigError: unknown variable (the nearest known one is suggested) or a value out of its range.
    """
    fields: dict[str, dict[str, Any]] = {concern: {} for concern in _CONCERNS}
    for variable, text in environment.items():
        name = variable.removeprefix(PREFIX)
        if name == variable or name in _OTHERS or text == "":
            continue
        if name not in _VARIABLES:
            raise ConfigError(_unknown(variable))
        concern, field = _VARIABLES[name]
        fields[concern][field] = _parse(variable, text, _CONCERNS[concern], field)
    config = Config(
        storage=Storage(**fields["storage"]),
        client=Client(**fields["client"]),
        peers=Peers(**fields["peers"]),
        cluster=Cluster(**fields["cluster"]),
        training=Training(**fields["training"]),
        logging=Logging(**fields["logging"]),
    )
    _check(config)
    return config


def _unknown(variable: str) -> str:
    near = nearest(variable.removeprefix(PREFIX), _VARIABLES)
    hint = f"; did you mean {PREFIX}{near}?" if near is not None else ""
    return f"unknown setting {variable}{hint}"


def _parse(variable: str, text: str, concern: type[msgspec.Struct], field: str) -> object:
    kind = next(each.type for each in msgspec.structs.fields(concern) if each.name == field)
    if kind is bool:
        if text.lower() not in _SWITCH:
            raise ConfigError(f"{variable}={text!r}: give on or off")
        return _SWITCH[text.lower()]
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if kind in (Path, Path | None):
        return Path(text)
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{variable}={text!r}: {error}") from error


def _check(config: Config) -> None:
    for variable, port in (
        ("PORT", config.client.port),
        ("PEER_PORT", config.peers.port),
        ("RAFT_PORT", config.peers.raft_port),
        ("RAY_PORT", config.training.ray_port),
    ):
        if not 1 <= port <= 65535:
            raise ConfigError(f"{PREFIX}{variable}={port}: a port is a number from 1 to 65535")
    if config.cluster.max_voters < 1 or config.cluster.max_voters % 2 == 0:
        raise ConfigError(f"{PREFIX}MAX_VOTERS={config.cluster.max_voters}: give an odd number, e.g. 3 or 5")
    for name, (least, most) in _RANGES.items():
        concern, field = _VARIABLES[name]
        value = getattr(getattr(config, concern), field)
        # Not `value < least`: a NaN is no number to work with either.
        if not least <= value <= (math.inf if most is None else most) or math.isinf(value):
            allowed = f"{least} or more" if most is None else f"{least} to {most}"
            raise ConfigError(f"{PREFIX}{name}={value}: give {allowed}")
    if config.storage.slot is not None and config.storage.slot < 1:
        raise ConfigError(f"{PREFIX}SLOT={config.storage.slot}: slots count from 1")
