"""Blank nodes that become the simulated cluster: the rules of formation, over the same links, with the same faults."""

from typing import TYPE_CHECKING

from tests.simulation import formation
from tests.simulation.formation import TICK, Node

if TYPE_CHECKING:
    from tests.simulation.world import World

_CRASHES = 3


class Forming(formation.World):
    """Whoever forms, or joins, becomes a server of `world`."""

    def __init__(self, world: "World", seed: int, rule: str, names: list[str]) -> None:
        crashes = 0 if rule == "development" else _CRASHES
        super().__init__(seed, rule, len(names), crashes=crashes, names=[_id_of(name) for name in names])
        self.names = sorted(names)
        self._world = world
        self._next = world.clock.now
        self._healed = False
        # Nothing arbitrates in rule 3: it only holds where all see one another.
        if rule == "development":
            self.loss = 0.0

    @property
    def blank(self) -> bool:
        """Whether some nodes belong to no cluster yet."""
        return not all(node.cluster for node in self.nodes.values())

    @property
    def calm(self) -> bool:
        """Whether the rule asks for a network without faults just now."""
        return self.rule == "development" and self.blank

    def step(self) -> None:
        world = self._world
        if not self.blank or world.clock.now < self._next:
            return
        self._next = world.clock.now + TICK
        if not (self._healed or self.formed or self.calm) and self.rng.random() < 0.3:
            self._split()
        blank = [name for name in self.names if not self.nodes[_id_of(name)].cluster]
        self.tick()
        for name in blank:
            if self.nodes[_id_of(name)].cluster and name != world.genesis:
                world.note(name, "joins the cluster")
                world.start(name)

    def heal(self) -> None:
        """No message is lost any more, and no node dies."""
        super().heal()
        self.crashes, self._healed = 0, True

    def _split(self) -> None:
        side = [name for name in self.names if self.rng.random() < 0.5]
        pairs = {(a, b) for a in self.names for b in self.names if (a in side) != (b in side)}
        self._world.network.blocked = pairs
        self._world.note("", f"partition before there is a cluster: {''.join(side)} | the others")

    def _form(self, node: Node, cluster: str) -> None:
        super()._form(node, cluster)
        self._world.found(_name_of(node.id))

    def _reaches(self, one: str, other: str) -> bool:
        blocked, pair = self._world.network.blocked, (_name_of(one), _name_of(other))
        return not blocked & {pair, pair[::-1]} and super()._reaches(one, other)


def _id_of(name: str) -> str:
    """What peers tell one another has ids of 32 digits."""
    return name.encode().hex() * 16


def _name_of(node: str) -> str:
    return bytes.fromhex(node[:2]).decode()
