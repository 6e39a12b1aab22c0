"""The rule by which a starting node resumes, joins, waits, forms a cluster or refuses: pure, first rule that applies.

Exactly one node of a cluster ever forms; all others join. See DESIGN.md for the reason of each rule.
"""

from enum import StrEnum

import msgspec

from discovery.peer import Peer
from discovery.promises import quorum_of

RECHECK_SECONDS = 0.5
"""How long to wait where nothing says for how long: peers and the volume are looked at again then."""
SPLIT_PATIENCE_SECONDS = 15.0
"""Of two clusters in sight one may be about to end in favour of the other (`discovery.merging`)."""


class Genesis(msgspec.Struct, frozen=True):
    """What the shared data volume says: this node forms this cluster."""

    node_id: str
    cluster_id: str


class FormationView(msgspec.Struct, frozen=True):
    """All that the decision depends on.

    `peers` answered over mutual TLS lately (so their claims are a member's, not a stranger's), without this node;
    `confirmed` are the ids of those that answered that they reach this node too. `quiet` is the time in seconds
    since the last new peer came into sight (since the start, if none did), `quiet_needed` what rule 3 asks for.
    """

    me: str
    has_log: bool
    peers: tuple[Peer, ...]
    confirmed: frozenset[str]
    genesis: Genesis | None
    """None: no data volume is shared by the nodes, so it cannot arbitrate."""
    expect: int
    quiet: float
    quiet_needed: float
    named: str = ""
    """The node that this one has promised, durably, to take for the one that forms (rule 2); empty if none."""
    left: str = ""
    """A cluster that has ended, and that this node belonged to: some of its members may not know it yet."""
    bound_for: str = ""
    """The cluster in favour of which it has ended, for as long as it is waited for."""


class How(StrEnum):
    """What entitles a node to form."""

    VOLUME = "volume"
    EXPECTED = "expected"
    DEVELOPMENT = "development"
    """Nothing arbitrated: two halves of a network that start apart would form two clusters. To be said aloud."""


class Resume(msgspec.Struct, frozen=True):
    """Go on with the log on disk."""


class Join(msgspec.Struct, frozen=True):
    peer: Peer


class Wait(msgspec.Struct, frozen=True):
    """Look again after `seconds`, or sooner when something changes."""

    seconds: float
    reason: str


class Form(msgspec.Struct, frozen=True):
    how: How


class Propose(msgspec.Struct, frozen=True):
    """Ask the blank peers in sight for their promises: form if a majority of N decides for this node, else wait for the
    one that it decides for."""


class Refuse(msgspec.Struct, frozen=True):
    """Nothing that this node can do alone is safe: an operator must act. Not before it has been so for `after` seconds:
    until then it may mend itself."""

    reason: str
    after: float = 0.0


Decision = Resume | Join | Wait | Form | Propose | Refuse


def decide(view: FormationView) -> Decision:
    """What a starting node does next. Total: every view has a decision."""
    if view.has_log:
        return Resume()
    members = [peer for peer in view.peers if peer.state == "member" and peer.cluster_id != view.left]
    if view.bound_for:
        return _go_over(members, view.bound_for)
    if members:
        return _join(members, view.genesis)
    if view.genesis is not None:
        return _by_volume(view.me, view.genesis)
    if view.expect:
        return _by_number(view)
    return _by_quiet(view)


def _go_over(members: list[Peer], cluster_id: str) -> Join | Wait:
    """A node whose cluster has ended in favour of this one."""
    there = [peer for peer in members if peer.cluster_id == cluster_id]
    if not there:
        return Wait(
            RECHECK_SECONDS, f"this node's cluster has ended in favour of {cluster_id}, of which none is in sight"
        )
    return Join(min(there, key=lambda peer: peer.id))


def _join(members: list[Peer], genesis: Genesis | None) -> Join | Refuse:
    """Rule 0. Of two clusters in sight the one that the volume names; if it names neither, no guess."""
    clusters = {peer.cluster_id for peer in members}
    if len(clusters) > 1:
        if genesis is None or genesis.cluster_id not in clusters:
            return Refuse(
                f"two clusters with this secret are in sight ({', '.join(sorted(clusters))}); a new node cannot tell "
                "which is right: stop the nodes of one, or give this node seeds of the other only, and an empty folder",
                after=SPLIT_PATIENCE_SECONDS,
            )
        members = [peer for peer in members if peer.cluster_id == genesis.cluster_id]
    # The genesis node first: at the start it is the leader, and every other node only learns of the cluster from it.
    return Join(min(members, key=lambda peer: (genesis is None or peer.id != genesis.node_id, peer.id)))


def _by_volume(me: str, genesis: Genesis) -> Form | Wait:
    """Rule 1."""
    if genesis.node_id == me:
        return Form(How.VOLUME)
    return Wait(
        RECHECK_SECONDS,
        f"node {genesis.node_id} forms the cluster, says the data volume's genesis file; no member is in sight yet",
    )


def _by_number(view: FormationView) -> Form | Propose | Wait | Refuse:
    """Rule 2. Any two majorities of N have a node in common, whose promise is durable: so one node forms at most."""
    blank = len(view.peers) + 1
    if blank > view.expect:
        return Refuse(
            f"PARVADA_EXPECT is {view.expect}, but {blank} new nodes are in sight with this one, so two groups could "
            f"each hold a majority: give all PARVADA_EXPECT={blank}, or start the rest once the cluster is formed"
        )
    if view.expect == 1:
        return Form(How.EXPECTED)
    if blank < quorum_of(view.expect):
        return Wait(
            RECHECK_SECONDS, f"{blank} of {view.expect} expected nodes in sight, {quorum_of(view.expect)} are needed"
        )
    # The lowest proposes, to be alone at it; so does a node that was named before it could form, e.g. by a crash.
    lowest = min((peer.id for peer in view.peers), default=view.me)
    if view.me < lowest or view.named == view.me:
        return Propose()
    return Wait(RECHECK_SECONDS, f"node {lowest} has the lowest id in sight and asks for the promises to form")


def _by_quiet(view: FormationView) -> Form | Wait:
    """Rule 3: the lowest id in a group that all see one another, once no new peer has come for a while."""
    if view.quiet < view.quiet_needed:
        return Wait(view.quiet_needed - view.quiet, "waiting for more nodes to come into sight")
    lowest = min((peer.id for peer in view.peers), default=view.me)
    if lowest < view.me:
        return Wait(RECHECK_SECONDS, f"node {lowest} has the lowest id in sight and forms the cluster")
    # A peer that does not see this node may think itself the lowest, so an unconfirmed one blocks: safety first.
    unseen = sorted(peer.id for peer in view.peers if peer.id not in view.confirmed)
    if unseen:
        return Wait(RECHECK_SECONDS, f"node {unseen[0]} is in sight but has not reached this node yet")
    return Form(How.DEVELOPMENT)
