"""What chaos asks of a cluster: lives that can be ended, nodes that can be frozen and cut off. Processes and containers
each bring their own."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from random import Random
from typing import Protocol

from tests.support.nodes import ClusterUnderTest, NodeHandle


class Target(NodeHandle, Protocol):
    """A node that chaos may strike."""

    @property
    def pid(self) -> int | None:
        """Names the life that the node has now: another after every restart, None while it has none."""
        ...


class Arena(ClusterUnderTest, ABC):
    """A cluster under test with the faults that its ground allows."""

    patience: float = 1.0
    """What all deadlines are multiplied by: a container with Ray comes back later than a bare process."""
    ways: Sequence[str] = ()
    """In which a node can be cut off from the others; none where this machine has no means."""

    @property
    @abstractmethod
    def nodes(self) -> Sequence[Target]: ...

    @abstractmethod
    def lives(self) -> dict[str, int]:
        """Name to pid of all nodes that run, asked for anew."""

    @abstractmethod
    def strike_down(self, nodes: Sequence[Target], random: Random) -> set[int]:
        """kill -9 of these nodes as nearly at once as can be; the pids that were killed."""

    @abstractmethod
    def revive(self, killed: set[int], timeout: float) -> None:
        """Return when every node runs again, in a life that is none of the `killed`."""

    @abstractmethod
    def frozen(self, node: Target) -> AbstractContextManager[None]:
        """The node stands still meanwhile and does not know it."""

    @abstractmethod
    def isolated(self, node: Target, way: str) -> AbstractContextManager[None]:
        """Nothing passes between this node and the others meanwhile, in one of `ways`."""
