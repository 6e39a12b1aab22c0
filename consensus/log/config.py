"""What one node's log needs to be told: who it is, where it listens and keeps its files, and whom it trusts."""

import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec

from consensus.core.base import Timers
from consensus.core.compaction import CompactionRule
from consensus.state import NodeId
from consensus.wire.acceptor import HandshakeLimits


class RaftConfig(msgspec.Struct, frozen=True):
    """One node's log. `genesis` is the node that formed the cluster: the sole voter of an empty log."""

    me: NodeId
    cluster_id: str
    genesis: NodeId
    directory: Path
    """Holds the journal and the snapshot, nothing else."""
    host: str
    port: int
    """0: chosen by the system."""
    timers: Timers = Timers()
    compaction: CompactionRule = CompactionRule()
    handshakes: HandshakeLimits = HandshakeLimits()


class Credentials(msgspec.Struct, frozen=True):
    """TLS contexts, which may be renewed in place, and who a certificate (DER) belongs to."""

    server: ssl.SSLContext
    client: ssl.SSLContext
    identify: Callable[[bytes], NodeId]
    """Raises PermissionError."""
