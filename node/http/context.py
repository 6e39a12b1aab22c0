"""What the handlers need of the node, as small protocols; `node.services` brings the real things."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set as AbstractSet
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
from aiohttp import web

from consensus.messages import BeginRotation
from consensus.ports import Log
from consensus.state import Digest, NodeId
from node.blobs.room import Room
from node.blobs.writer import BlobWriter, StoredBlob
from node.telemetry.history import History
from parvada import schema
from serving.stats import ModelStats
from training.ports import TrainerReport


class Workshop(Protocol):
    """Heavy work in a process of its own (`node.processes.workshop`)."""

    async def run(self, function: str, *args: Any, seconds: float | None = None) -> Any: ...


class Blobs(Protocol):
    """The local store (`node.blobs.store`)."""

    def begin(self) -> BlobWriter: ...

    async def adopt(self, path: Path) -> StoredBlob: ...

    @property
    def room(self) -> Room: ...


class Distributor(Protocol):
    """Makes a blob of the local store durable on enough nodes (`node.blobs.distribute`)."""

    async def store_durably(self, digest: Digest) -> tuple[NodeId, ...]: ...


class Fetcher(Protocol):
    """The local path of a blob, fetched from a holder if need be (`node.local.api`)."""

    async def make_present(self, digest: Digest) -> Path: ...


class Telemetry(Protocol):
    """Figures of all nodes within reach (`node.telemetry.telemetry`)."""

    def nodes(self) -> list[schema.Node]: ...

    def stats(self) -> schema.Stats: ...

    def history(self, window: float, step: float) -> History: ...

    def full(self) -> Sequence[str]: ...

    def ray_nodes(self) -> Sequence[NodeId]: ...

    def trainer(self) -> TrainerReport | None: ...

    def local_rows(self) -> Sequence[ModelStats]: ...


class Leadership(Protocol):
    """What only the leader does, from any node (`node.membership.leadership`)."""

    async def transfer(self, to: NodeId | None) -> None: ...

    async def retire(self, node: NodeId) -> None:
        """Until that node, which is about to be removed, has no vote."""
        ...


class Rotation(Protocol):
    """Rotation of the cluster secret (`node.membership.rotation`)."""

    async def begin(self, propose: Callable[[BeginRotation], Awaitable[object]]) -> None: ...


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
    blobs: Blobs
    distributor: Distributor
    fetcher: Fetcher
    telemetry: Telemetry
    leadership: Leadership
    rotation: Rotation
    settings: Settings
    removed: asyncio.Event
    """Set when this node has heard, from its log or from its peers, that it was removed for good."""
    lost: Callable[[], AbstractSet[Digest]] = frozenset
    """Referred to, and held by no node within reach (`node.blobs.replicator`)."""
    split: Callable[[], Mapping[NodeId, str]] = dict
    """Members of other clusters under the same secret, with their cluster ids (`node.joining.gate`)."""


PORTS = web.AppKey("ports", Ports)
