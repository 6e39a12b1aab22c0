"""Rules of the cluster's name and of who belongs to it."""

from msgspec.structs import replace

from consensus.messages import Dissolve, JoinMember, NameCluster, RaiseLevel, RemoveMember, SetMemberStatus
from consensus.rules import blobs, rotation
from consensus.rules.checks import Change, Stamp, check_count, check_name, check_node_id, check_text, event, refuse
from consensus.state import ClusterState, Member, MemberStatus, NodeId, RotationPhase

DEVELOPMENT = "development"
"""The formation in which nothing arbitrated (rule 3): two halves of a network may have formed a cluster each."""
_MAX_ADDRESSES = 16
_MAX_LEVEL = 1_000_000


def name_cluster(state: ClusterState, command: NameCluster, stamp: Stamp) -> Change:
    check_name("cluster id", command.cluster_id)
    check_name("cluster name", command.name)
    if state.cluster_id:
        if (state.cluster_id, state.name) == (command.cluster_id, command.name):
            return Change(state)
        refuse("conflict", f"the cluster already has the id {state.cluster_id} and the name {state.name!r}")
    check_text("formation", command.formation, empty=True, most=64)
    after = replace(state, cluster_id=command.cluster_id, name=command.name, formation=command.formation)
    return Change(after, (event(stamp, "cluster.named", command.name, cluster_id=command.cluster_id),))


def dissolvable(state: ClusterState) -> bool:
    """Whether nothing is lost when this cluster ends: nobody ever gave it anything to keep, and it was formed where
    nothing arbitrates, so that its nodes are free to join another."""
    return (
        state.formation == DEVELOPMENT
        and not (state.datasets or state.retired or state.jobs or state.models or state.blobs or state.tokens)
        and not state.revoked
        and (state.rotation.generation, state.rotation.phase) == (1, RotationPhase.SETTLED)
        and all(member.status is not MemberStatus.DRAINING for member in state.members.values())
    )


def dissolve(state: ClusterState, command: Dissolve, stamp: Stamp) -> Change:
    check_name("cluster id", command.into)
    if state.dissolved == command.into:
        return Change(state)
    if state.dissolved:
        refuse("conflict", f"the cluster has ended in favour of {state.dissolved}")
    if command.into == state.cluster_id:
        refuse("conflict", "a cluster cannot dissolve into itself")
    if not dissolvable(state):
        refuse("conflict", "only a cluster that nobody has put anything in, and that nothing arbitrated, may dissolve")
    after = replace(state, dissolved=command.into)
    return Change(after, (event(stamp, "cluster.dissolved", state.name, into=command.into),))


def join_member(state: ClusterState, command: JoinMember, stamp: Stamp) -> Change:
    _check_member(command.member)
    present = state.members.get(command.member.id)
    if command.member.id in state.revoked:
        refuse("revoked", f"node {command.member.id} was removed for good: give it a new identity")
    if command.member.level < state.level:
        refuse(
            "conflict",
            f"{command.member.name} understands level {command.member.level}, the cluster is at level {state.level}: "
            "install the release of the other nodes",
        )
    member = _merged(present, command.member, stamp.at)
    if member == present:
        return Change(state)
    return Change(
        replace(state, members=state.members.set(member.id, member)),
        (event(stamp, _join_kind(present, member), member.id, name=member.name, status=member.status),),
    )


def _merged(present: Member | None, told: Member, at: float) -> Member:
    """A member keeps when it joined, and keeps draining; one that was away is back."""
    if present is None:
        return replace(told, joined_at=at, status=MemberStatus.ACTIVE)
    status = MemberStatus.ACTIVE if present.status is MemberStatus.AWAY else present.status
    return replace(told, joined_at=present.joined_at, status=status)


def _join_kind(present: Member | None, member: Member) -> str:
    if present is None:
        return "member.joined"
    return "member.updated" if present.status is member.status else "member.status"


def _check_member(member: Member) -> None:
    check_node_id(member.id)
    check_name("node name", member.name)
    check_count("number of addresses", len(member.addresses), 0, _MAX_ADDRESSES)
    for address in member.addresses:
        check_text("address", address, most=255)
    for what, port in (("peer", member.peer_port), ("Raft", member.raft_port), ("API", member.api_port)):
        check_count(f"{what} port", port, 0, 65535)
    check_count("cpus", member.cpus, 0, 100_000)
    check_text("version", member.version, empty=True, most=64)
    check_text("machine", member.machine, empty=True, most=64)
    check_count("level", member.level, 1, _MAX_LEVEL)


def set_member_status(state: ClusterState, command: SetMemberStatus, stamp: Stamp) -> Change:
    """A member that is away stays recorded as a holder: it still has the bytes."""
    member = known_member(state, command.node)
    if member.status is command.status:
        return Change(state)
    changed = replace(member, status=command.status)
    return Change(
        replace(state, members=state.members.set(member.id, changed)),
        (event(stamp, "member.status", member.id, name=member.name, status=command.status),),
    )


def remove_member(state: ClusterState, command: RemoveMember, stamp: Stamp) -> Change:
    if command.node in state.revoked:
        return Change(state)
    member = known_member(state, command.node)
    if len(state.members) == 1:
        refuse("conflict", f"{member.name} is the last member: a cluster cannot be left empty")
    after = replace(
        state,
        members=state.members.delete(member.id),
        revoked=state.revoked.set(member.id, stamp.at),
        blobs=blobs.without_holder(state.blobs, member.id),
    )
    removed = Change(after, (event(stamp, "member.removed", member.id, name=member.name),))
    return rotation.advanced(removed, stamp)  # which may have waited for this node


def raise_level(state: ClusterState, command: RaiseLevel, stamp: Stamp) -> Change:
    """Every member counts, also one that is away: it comes back with what it has."""
    check_count("level", command.level, 1, _MAX_LEVEL)
    if command.level <= state.level:
        return Change(state)
    if not state.members:
        refuse("conflict", "there is no member to understand a higher level")
    last = min(state.members.values(), key=lambda member: (member.level, member.id))
    if last.level < command.level:
        refuse(
            "conflict", f"{last.name} understands level {last.level} only, not {command.level}: upgrade or remove it"
        )
    detail = {"level": command.level, "before": state.level}
    return Change(replace(state, level=command.level), (event(stamp, "cluster.level_raised", state.name, **detail),))


def known_member(state: ClusterState, node: NodeId) -> Member:
    member = state.members.get(node)
    if member is None:
        if node in state.revoked:
            refuse("revoked", f"node {node} was removed for good")
        check_node_id(node)
        refuse("not_found", f"no member has the id {node}")
    return member
