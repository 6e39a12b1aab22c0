"""Rules of the rotation of the cluster secret: its phases, who has confirmed each, when the next one begins.

Secrets are not here: of each the log holds a digest that tells nothing of it. A phase ends, by the very entry that
makes it so, when every member has confirmed that it has done what the phase asks.
"""

from msgspec.structs import replace

from consensus.messages import AbandonRotation, BeginRotation, ConfirmRotation, Event, ExcuseNode
from consensus.rules.checks import Change, Stamp, check_choice, check_digest, event, refuse
from consensus.state import ClusterState, NodeId, Rotation, RotationPhase

_NEXT = {
    RotationPhase.PREPARE: RotationPhase.PRESENT,
    RotationPhase.PRESENT: RotationPhase.RETIRE,
    RotationPhase.RETIRE: RotationPhase.SETTLED,
}


def begin_rotation(state: ClusterState, command: BeginRotation, stamp: Stamp) -> Change:
    check_digest("digest of the secret", command.digest)
    rotation = state.rotation
    if rotation.phase is not RotationPhase.SETTLED:
        refuse("conflict", f"the rotation to generation {rotation.generation + 1} is not finished: {rotation.phase}")
    if command.generation != rotation.generation + 1:
        refuse("conflict", f"generation {rotation.generation} is in force: the next one is {rotation.generation + 1}")
    if command.source not in state.members:
        refuse("conflict", f"node {command.source} is no member: it cannot hand a secret over")
    if command.digest == rotation.digest:
        refuse("conflict", "this is the secret in force")
    begun = replace(
        rotation,
        phase=RotationPhase.PREPARE,
        coming=command.digest,
        source=command.source,
        begun_at=stamp.at,
        confirmed=(),
        excused=(),
    )
    return Change(replace(state, rotation=begun), (_told(begun, stamp),))


def confirm_rotation(state: ClusterState, command: ConfirmRotation, stamp: Stamp) -> Change:
    """A confirmation that comes twice, or late, changes nothing."""
    check_digest("digest of the secret", command.digest)
    check_choice("phase", command.phase, tuple(_NEXT))
    rotation = state.rotation
    if (command.digest, command.phase) != (rotation.coming, rotation.phase) or command.node not in state.members:
        return Change(state)
    if command.node in rotation.confirmed:
        return Change(state)
    confirmed = tuple(sorted({*rotation.confirmed, command.node}))
    # Whoever does its part is waited for again.
    excused = tuple(node for node in rotation.excused if node != command.node)
    after = replace(rotation, confirmed=confirmed, excused=excused)
    return advanced(Change(replace(state, rotation=after)), stamp)


def excuse_node(state: ClusterState, command: ExcuseNode, stamp: Stamp) -> Change:
    """The rotation goes on without that node: it will need the new secret from the operator."""
    rotation = state.rotation
    if rotation.phase is RotationPhase.SETTLED:
        refuse("conflict", "no rotation of the secret is under way")
    member = state.members.get(command.node)
    if member is None:
        refuse("not_found", f"no member has the id {command.node}")
    if command.node in rotation.confirmed or command.node in rotation.excused:
        return Change(state)
    excused = tuple(sorted({*rotation.excused, command.node}))
    if {*state.members} <= {*excused}:
        refuse("conflict", f"{member.name} is the last node that is waited for: without it nobody has the new secret")
    if rotation.phase is RotationPhase.PREPARE and not {*rotation.confirmed, rotation.source} - {*excused}:
        refuse("conflict", "no other node has the new secret yet: wait for one, or abandon the rotation")
    excuse = event(stamp, "secret.node_excused", member.id, name=member.name, phase=rotation.phase)
    after = replace(state, rotation=replace(rotation, excused=excused))
    return advanced(Change(after, (excuse,)), stamp)


def abandon_rotation(state: ClusterState, command: AbandonRotation, stamp: Stamp) -> Change:
    """Only while nobody presents the new secret: later the way out is forward."""
    rotation = state.rotation
    if rotation.phase is RotationPhase.SETTLED:
        refuse("conflict", "no rotation of the secret is under way")
    if rotation.phase is not RotationPhase.PREPARE:
        refuse("conflict", "nodes present the new secret already: the rotation can only be finished")
    after = Rotation(generation=rotation.generation, digest=rotation.digest)
    told = event(stamp, "secret.rotation_abandoned", str(rotation.generation + 1))
    return Change(replace(state, rotation=after), (told,))


def waited_for(state: ClusterState) -> tuple[NodeId, ...]:
    """Members that have not confirmed the present phase; nobody while none is under way."""
    rotation = state.rotation
    if rotation.phase is RotationPhase.SETTLED:
        return ()
    return tuple(sorted({*state.members} - {*rotation.confirmed, *rotation.excused}))


def holders(state: ClusterState) -> tuple[NodeId, ...]:
    """Members that have the coming secret for sure, once one is confirmed: its maker first."""
    rotation = state.rotation
    if rotation.phase in (RotationPhase.SETTLED, RotationPhase.PREPARE):
        have = [*rotation.confirmed]
    else:  # all had it before this phase began
        have = [node for node in sorted(state.members) if node not in rotation.excused]
    first = [rotation.source] if rotation.source in state.members else []
    return tuple(dict.fromkeys([*first, *(node for node in have if node in state.members)]))


def digest_in_force(rotation: Rotation) -> str:
    """Of the secret that credentials are made of from here on; empty for the first secret of a cluster."""
    presented = rotation.phase in (RotationPhase.PRESENT, RotationPhase.RETIRE)
    return rotation.coming if presented else rotation.digest


def advanced(change: Change, stamp: Stamp) -> Change:
    """Into the next phase once nobody is waited for: to be asked whenever a node has confirmed, is excused or gone."""
    state, events = change.state, change.events
    rotation = state.rotation
    done = any(node in state.members for node in rotation.confirmed)  # with everybody excused, nobody has done it
    if rotation.phase is RotationPhase.SETTLED or waited_for(state) or not done:
        return change
    after = replace(rotation, phase=_NEXT[rotation.phase], confirmed=())
    if after.phase is RotationPhase.SETTLED:
        after = Rotation(
            generation=rotation.generation + 1, digest=rotation.coming, begun_at=stamp.at, excused=rotation.excused
        )
    moved = replace(change, state=replace(state, rotation=after), events=(*events, _told(after, stamp)))
    return advanced(moved, stamp)


def _told(rotation: Rotation, stamp: Stamp) -> Event:
    settled = rotation.phase is RotationPhase.SETTLED
    number = rotation.generation if settled else rotation.generation + 1
    return event(stamp, "secret.rotated" if settled else "secret.rotating", str(number), phase=rotation.phase)
