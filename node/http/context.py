"""What the handlers need of the node; `node.services` brings it."""

import asyncio
from collections.abc import Callable, Mapping, Sequence, Set as AbstractSet
from pathlib import Path
from typing import Literal, Protocol

import msgspec
from aiohttp import web

from consensus.ports import Log
from consensus.state import Digest, NodeId
from node.blobs.distribute import Distributor
from node.blobs.store import BlobStore
from node.jobs.results import Results, Workshop
from node.membership.leadership import Leadership
from node.membership.rotation import Rotator
from node.peering.client import PeerClient
from node.telemetry.live import LiveFits
from node.telemetry.telemetry import Telemetry


class Fetcher(Protocol):
    """The local path of a blob, fetched from a holder if need be: `node.local.api`, a room that is closed to this
    one."""

    async def make_present(self, digest: Digest) -> Path: ...


class Settings(msgspec.Struct, frozen=True):
    """What of the configuration the API needs. `admin_sha256s`: the hashes, in hexadecimal, of the admin tokens that
    are good now; two while the cluster secret is rotated."""

    node: NodeId
    auth: Literal["writes", "all"]
    admin_sha256s: Callable[[], Sequence[str]]
    tmp: Path
    """Of this node's slot: where uploads are written and parsed."""
    token_seeds: Callable[[], Sequence[bytes]]
    """From the cluster secret, the newest first: make the text of a token from an idempotency key, the same on every
    node."""
    max_upload_bytes: int
    formation: str
    """How this node came to its cluster."""
    mode: Literal["ray", "inline"]
    copies: int
    """On how many nodes a blob is kept."""


class Ports(msgspec.Struct, frozen=True):
    """All that handlers reach; nothing else of the node."""

    log: Log
    workshop: Workshop
    blobs: BlobStore
    distributor: Distributor
    fetcher: Fetcher
    results: Results
    """Of sealed jobs."""
    telemetry: Telemetry
    leadership: Leadership
    rotation: Rotator
    settings: Settings
    removed: asyncio.Event
    """Set when this node has heard, from its log or from its peers, that it was removed for good."""
    live: LiveFits
    peers: PeerClient
    lost: Callable[[], AbstractSet[Digest]] = frozenset
    """Referred to, and held by no node within reach (`node.blobs.replicator`)."""
    split: Callable[[], Mapping[NodeId, str]] = dict
    """Members of other clusters under the same secret, with their cluster ids (`node.joining.gate`)."""


PORTS = web.AppKey("ports", Ports)
