"""Nodes that start blank on a network that loses, delays and splits, in virtual time from one seed."""

import random
from collections.abc import Sequence
from typing import Literal, NamedTuple

from discovery.formation import Form, FormationView, Genesis, Join, Propose, Refuse, Wait, decide
from discovery.merging import Standing, abandoned_for, ends_for
from discovery.peer import Peer
from discovery.promises import Ask, Founding, Promised, Vote, answer, choose, next_ballot, quorum_of, vote

TICK = 0.5
QUIET = 5.0
BOUND_SECONDS = 15.0
RULES = ("volume", "expected", "development")


class Node:
    """`promised`, `cluster`, `left` and `bound_for` are on disk; everything else is gone after a crash."""

    def __init__(self, ident: str, starts: float) -> None:
        self.id, self.starts = ident, starts
        self.promised = Promised()
        self.cluster = self.left = self.bound_for = ""
        self.met: dict[str, float] = {}
        self.newest = starts
        self.rests_until = 0.0


class Refused(NamedTuple):
    node: str
    reason: str


class World:
    """`run` until the deadline: how many clusters there are then is the test's question."""

    def __init__(
        self, seed: int, rule: str, nodes: int, expect: int = 0, crashes: int = 0, names: Sequence[str] = ()
    ) -> None:
        self.rng = random.Random(seed)
        self.rule, self.expect = rule, expect or nodes
        ids = names or [f"{self.rng.getrandbits(128):032x}" for _ in range(nodes)]
        self.nodes = {node: Node(node, self.rng.uniform(0.0, 2.0)) for node in ids}
        self.side: dict[str, int] = dict.fromkeys(ids, 0)
        self.loss = self.rng.uniform(0.0, 0.15)
        self.genesis: Genesis | None = None
        self.formed: list[str] = []
        self.ended: dict[str, str] = {}
        """Clusters that have ended (which a majority of their members agreed to), and in favour of which one."""
        self.full: set[str] = set()
        """Clusters that somebody has put something in."""
        self.refused: list[Refused] = []
        self.crashes = crashes
        self.joined: dict[str, set[str]] = {node: set() for node in ids}
        self.now = 0.0
        self._peers: dict[str, Peer] = {}

    def partition(self, sides: int) -> None:
        self.side = {node: self.rng.randrange(sides) for node in sorted(self.nodes)}

    def heal(self) -> None:
        self.side = dict.fromkeys(self.nodes, 0)
        self.loss = 0.0

    def run(self, until: float, clusters: int = 0) -> None:
        """Until all belong to a cluster, and there are no more than so many where it says so."""
        while self.now < until and not self._done(clusters):
            self.tick()

    def _done(self, clusters: int) -> bool:
        return all(node.cluster for node in self.nodes.values()) and (not clusters or len(self.clusters) <= clusters)

    def tick(self) -> None:
        """Every node looks around once and does what the rules say."""
        self.now += TICK
        for node in self.rng.sample(sorted(self.nodes), len(self.nodes)):
            self._turn(self.nodes[node])

    @property
    def clusters(self) -> set[str]:
        return {node.cluster for node in self.nodes.values()}

    def _reaches(self, one: str, other: str) -> bool:
        return self.side[one] == self.side[other] and self.rng.random() >= self.loss

    # ---- one node's turn
    def _turn(self, node: Node) -> None:
        if self.now < max(node.starts, node.rests_until):
            return
        self._greet(node)
        if node.cluster:
            self._compare(node)
            return
        decision = decide(self._view(node))
        match decision:
            case Join(peer):
                self._belong(node, self.nodes[peer.id].cluster)
            case Form():
                self._form(node, self.genesis.cluster_id if self.genesis else f"{self.rng.getrandbits(128):032x}")
            case Propose():
                self._propose(node)
            case Refuse(reason):
                self.refused.append(Refused(node.id, reason))
            case Wait():
                pass

    # ---- clusters that meet
    def _compare(self, node: Node) -> None:
        """What `node.joining.dissolution` does. A log is one fact of the world: what most members agreed to."""
        own = self._standing(node.cluster)
        others = {self.nodes[other].cluster for other in node.met} - {"", node.cluster}
        if node.cluster in self.ended:
            if self.rng.random() < 0.8:  # or it has slept through it so far
                self._leave(node, self.ended[node.cluster])
        elif own.quorum and (into := ends_for(own, map(self._standing, sorted(others)))):
            self.ended[node.cluster] = into
        else:
            elsewhere = {other: self.nodes[other].cluster for other in node.met if self.nodes[other].cluster in others}
            if into := abandoned_for(own, self._voters(node.cluster), elsewhere):
                self._leave(node, into)

    def _standing(self, cluster: str) -> Standing:
        present = [node for node in self.nodes.values() if node.cluster == cluster]
        quorum = cluster not in self.ended and 2 * len(present) > len(self._voters(cluster))
        return Standing(cluster, self.rule == "development" and cluster not in self.full, quorum)

    def _voters(self, cluster: str) -> frozenset[str]:
        return frozenset(node for node, joined in self.joined.items() if cluster in joined)

    def _leave(self, node: Node, into: str) -> None:
        node.left, node.bound_for, node.cluster = node.cluster, into, ""
        node.starts = self.now + self.rng.uniform(0.5, 2.0)
        node.newest = node.starts
        node.met.clear()

    def _form(self, node: Node, cluster: str) -> None:
        self.formed.append(cluster)
        self._belong(node, cluster)

    def _belong(self, node: Node, cluster: str) -> None:
        if cluster and cluster not in self.ended:
            node.cluster = cluster
            self.joined[node.id].add(cluster)
            node.left = node.bound_for = ""

    def _greet(self, node: Node) -> None:
        for other in self.nodes.values():
            if other is node or other.starts > self.now:
                continue
            if self._reaches(node.id, other.id):
                if other.id not in node.met:
                    node.newest = self.now
                node.met[other.id] = self.now
            elif self.now - node.met.get(other.id, self.now) >= 3.0:
                del node.met[other.id]

    def _view(self, node: Node) -> FormationView:
        peers = tuple(self._peer(self.nodes[other]) for other in sorted(node.met))
        genesis = None
        if self.rule == "volume" and not any(peer.state == "member" for peer in peers):
            genesis = self._claim(node)
        return FormationView(
            me=node.id,
            has_log=bool(node.cluster),
            peers=peers,
            confirmed=frozenset(other for other in node.met if node.id in self.nodes[other].met),
            genesis=genesis,
            expect=self.expect if self.rule == "expected" else 0,
            quiet=self.now - node.newest,
            quiet_needed=QUIET,
            named=node.promised.value.node_id if node.promised.value else "",
            left=node.left,
            bound_for=node.bound_for if self.now - node.starts < BOUND_SECONDS else "",
        )

    def _claim(self, node: Node) -> Genesis:
        """What the shared volume says: the first to ask forms."""
        if self.genesis is None:
            self.genesis = Genesis(node.id, "0" * 32)
        return self.genesis

    def _peer(self, node: Node) -> Peer:
        if node.id not in self._peers or self._peers[node.id].cluster_id != node.cluster:
            state: Literal["blank", "member"] = "member" if node.cluster else "blank"
            told = Peer(node.id, ("10.0.0.1",), 7443, 7444, 8080, state, node.cluster, "f" * 16, "0.1.0")
            self._peers[node.id] = told
        return self._peers[node.id]

    # ---- rule 2: a round, of which any message may be lost, and the proposer die between any two
    def _propose(self, node: Node) -> None:
        voters = [node.id, *sorted(node.met)]
        known = [node.promised, *(self.nodes[other].promised for other in node.met)]
        ballot = next_ballot(self.rng.sample(known, 1), node.id)
        granted = self._ask(node, voters, Ask(ballot, self.expect))
        if granted is not None and len(granted) >= quorum_of(self.expect):
            mine = Founding(node.id, f"{self.rng.getrandbits(128):032x}", "parvada")
            value = choose(granted, mine)
            accepted = self._ask(node, voters, Ask(ballot, self.expect, value))
            if accepted is not None and len(accepted) >= quorum_of(self.expect) and value.node_id == node.id:
                self._form(node, value.cluster_id)
                return
        node.rests_until = self.now + self.rng.uniform(0.5, 3.0)

    def _ask(self, node: Node, voters: list[str], ask: Ask) -> list[Vote] | None:
        """None if the proposer died meanwhile."""
        votes = []
        for other in self.rng.sample(voters, len(voters)):
            if self.crashes and self.rng.random() < 0.02:
                self.crashes -= 1
                node.met.clear()
                node.starts = self.now + self.rng.uniform(0.0, 5.0)
                return None
            if other == node.id or self._reaches(node.id, other):
                acceptor = self.nodes[other]
                said = vote(acceptor.promised, ask)
                acceptor.promised = answer(acceptor.promised, ask)
                if said.granted and (other == node.id or self._reaches(other, node.id)):
                    votes.append(said)
        return votes
