"""The read view of the registry that the agent pushes to its fronts: all they need to route, check and answer.

One frame of the stream (`parvada.local.VIEW`) is the msgpack of a `ServingView`.
"""

import msgspec

from parvada import schema
from parvada.local import frame


class TokenView(msgspec.Struct, frozen=True):
    """An API token as fronts know it. The cluster's admin token is listed here too, with role `admin`."""

    sha256: str
    """64 hexadecimal digits: the hash of the token's text."""
    role: str
    """`viewer`, `predictor`, `operator` or `admin`."""


class Arm(msgspec.Struct, frozen=True):
    """One arm of a traffic split; weights are relative to one another."""

    version: int
    weight: int


class VersionView(msgspec.Struct, frozen=True):
    version: int
    digest: str
    """SHA-256 of the model file, 64 hexadecimal digits."""
    bytes: int
    task: str
    estimator: str
    engine: str
    """`sklearn` (a skops file) or `onnx`."""
    signature: schema.Signature


class ModelView(msgspec.Struct, frozen=True):
    name: str
    latest: int
    aliases: dict[str, int]
    versions: tuple[VersionView, ...]
    traffic: tuple[Arm, ...] = ()

    def find(self, version: int) -> VersionView | None:
        return next((v for v in self.versions if v.version == version), None)


class ServingView(msgspec.Struct, frozen=True):
    index: int
    """Log index that this view reflects."""
    node: str
    auth: str
    """`writes` (predictions are open) or `all`."""
    stale_seconds: float | None
    """Seconds since the node last knew of a quorum; None while it has one."""
    ready: bool
    not_ready_reason: str = ""
    models: tuple[ModelView, ...] = ()
    tokens: tuple[TokenView, ...] = ()

    def find(self, name: str) -> ModelView | None:
        return next((m for m in self.models if m.name == name), None)

    def aliased(self) -> tuple[tuple[ModelView, VersionView], ...]:
        """Every version that some alias names, each once: what a node must be able to serve."""
        wanted = ((m, m.find(v)) for m in self.models for v in sorted(set(m.aliases.values())))
        return tuple((m, version) for m, version in wanted if version is not None)


def encode_view(view: ServingView) -> bytes:
    """One whole frame: length and body."""
    return frame(msgspec.msgpack.encode(view))


def decode_view(body: bytes) -> ServingView:
    """The body of one frame, without its length. Raises `msgspec.DecodeError` or `msgspec.ValidationError`."""
    return msgspec.msgpack.decode(body, type=ServingView)
