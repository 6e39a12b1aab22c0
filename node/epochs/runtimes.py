"""What carries out an epoch on this node: Ray's processes, or nothing but the trainer's own pool."""

from collections.abc import Callable
from typing import Protocol

from node.identity.pki import RayCredentials, SecretError
from training.epoch import RayRole, RayStatus
from training.ray_cluster import RayCluster, RayStartError

INLINE_ADDRESS = "inline"
"""What the head of an epoch without Ray announces."""


class Runtime(Protocol):
    """At most one epoch's share runs at a time; starting ends what ran before."""

    @property
    def status(self) -> RayStatus: ...

    @property
    def environment(self) -> dict[str, str]:
        """For the trainer: how to reach the runtime, with the epoch's credentials."""
        ...

    async def start_head(self, epoch: int) -> None: ...

    async def join(self, epoch: int, address: str) -> None: ...

    async def stop(self) -> None: ...


class RayRuntime:
    """Ray with the certificate and token of the epoch."""

    def __init__(self, cluster: RayCluster, credentials: Callable[[int], RayCredentials]) -> None:
        self._cluster = cluster
        self._credentials = credentials

    @property
    def status(self) -> RayStatus:
        return self._cluster.status

    @property
    def environment(self) -> dict[str, str]:
        return {**self._cluster.environment, "PARVADA_RAY_ADDRESS": self._cluster.status.address}

    async def start_head(self, epoch: int) -> None:
        await self._cluster.start_head(epoch, self._made(epoch))

    async def join(self, epoch: int, address: str) -> None:
        await self._cluster.join(epoch, address, self._made(epoch))

    def _made(self, epoch: int) -> RayCredentials:
        try:
            return self._credentials(epoch)
        except SecretError as error:
            raise RayStartError(str(error)) from error

    async def stop(self) -> None:
        await self._cluster.stop()


class InlineRuntime:
    """No Ray: the head's trainer works with processes of its own, the other nodes have nothing to run."""

    def __init__(self) -> None:
        self._status = RayStatus()

    @property
    def status(self) -> RayStatus:
        return self._status

    @property
    def environment(self) -> dict[str, str]:
        return {"PARVADA_RAY_ADDRESS": ""}

    async def start_head(self, epoch: int) -> None:
        self._status = RayStatus(RayRole.HEAD, epoch, INLINE_ADDRESS, alive=True)

    async def join(self, epoch: int, address: str) -> None:
        self._status = RayStatus(RayRole.WORKER, epoch, address, alive=True)

    async def stop(self) -> None:
        self._status = RayStatus()
