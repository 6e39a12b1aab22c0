"""How nodes on one machine share its CPUs: pure, so that all of them come to the same from the same state."""

from collections.abc import Iterable

from consensus.state import ClusterState, Member, MemberStatus, NodeId


def cpu_shares(members: Iterable[Member]) -> dict[NodeId, int]:
    """How many CPUs each member may keep busy with training.

    Nodes on one machine have together what it has, and each at least one. What an operator gave (`cpus_given`) is taken
    at its word, and the others share the rest. A member that takes no work, because it drains or is away, has none.
    """
    members = list(members)
    shares = {member.id: 0 for member in members}
    for together in _machines(members):
        given = {member.id: member.cpus for member in together if member.cpus_given}
        rest = sorted((member for member in together if not member.cpus_given), key=lambda member: member.id)
        cores = max((member.cpus for member in rest), default=0) - sum(given.values())
        shares |= given
        for number, member in enumerate(rest):
            shares[member.id] = max(1, (cores + len(rest) - 1 - number) // len(rest))
    return shares


def epoch_shares(state: ClusterState) -> dict[NodeId, int]:
    """As `cpu_shares`, for the trainer of the current epoch: nothing on nodes that take no part in it."""
    return {node: cpus if takes_part(state, node) else 0 for node, cpus in cpu_shares(state.members.values()).items()}


def takes_part(state: ClusterState, node: NodeId) -> bool:
    """Whether a member has a share in the current epoch: it does not drain, and its release is that of the head. What
    goes to Ray's workers and comes back are structs of one release, that another one need not be able to read."""
    member, head = state.members.get(node), state.members.get(state.epoch.head)
    if member is None or member.status is MemberStatus.DRAINING:
        return False
    return head is None or head.level == member.level


def beside(members: Iterable[Member], node: NodeId) -> list[NodeId]:
    """The other members that take work on the machine of `node`, and so are part of why it has no more CPUs."""
    for together in _machines(members):
        if any(member.id == node and not member.cpus_given for member in together):
            return sorted(member.id for member in together if member.id != node)
    return []


def _machines(members: Iterable[Member]) -> Iterable[list[Member]]:
    """Those that take work, by machine; one whose machine is not known is alone."""
    machines: dict[str, list[Member]] = {}
    for member in members:
        if member.status is MemberStatus.ACTIVE:
            machines.setdefault(member.machine or f"of {member.id}", []).append(member)
    return machines.values()
