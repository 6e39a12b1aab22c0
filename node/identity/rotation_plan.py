"""What a node does next in a rotation of the cluster secret; pure."""

import msgspec

from consensus.state import NodeId, Rotation, RotationPhase


class Held(msgspec.Struct, frozen=True):
    """What this node has and does, by digests. `presented` is the secret of the leaf that it shows."""

    presented: str
    also: str = ""
    """The other one that it keeps; empty for none."""


class Nothing(msgspec.Struct, frozen=True):
    """All that the phase asks is done and confirmed, or none is under way."""


class Fetch(msgspec.Struct, frozen=True):
    """Get the secret with this digest from a member that has it, and keep it durably."""

    digest: str


class Present(msgspec.Struct, frozen=True):
    """Show certificates of the other secret from here on."""


class Retire(msgspec.Struct, frozen=True):
    """Keep and trust the presented secret alone."""


class Confirm(msgspec.Struct, frozen=True):
    """Say in the log that this phase is done here."""

    digest: str
    phase: RotationPhase


Step = Nothing | Fetch | Present | Retire | Confirm


def next_step(rotation: Rotation, me: NodeId, held: Held) -> Step:
    """Total: also for a node that comes back after several phases, or after a crash between two steps."""
    if rotation.phase is RotationPhase.SETTLED:
        if not held.also:
            return Nothing()
        # It was not waited for while the others retired the old one; or the rotation was abandoned, or never begun.
        return Present() if held.also == rotation.digest else Retire()
    coming = rotation.coming
    if coming not in (held.presented, held.also):
        return Fetch(coming)
    if rotation.phase is not RotationPhase.PREPARE:
        if held.presented != coming:
            return Present()
        if rotation.phase is RotationPhase.RETIRE and held.also:
            return Retire()
    return Nothing() if me in rotation.confirmed else Confirm(coming, rotation.phase)
