"""What this node's Ray has to do next, given the committed epoch and what runs here: a pure reconciliation.

The caller acts on one decision at a time and asks again, so that any crash, lost answer or late fact ends in the
same place: Ray of the committed epoch, in the committed role, and nothing else.
"""

from enum import StrEnum

import msgspec

from consensus.state import Epoch, NodeId


class RayRole(StrEnum):
    """What this node's Ray is to its cluster."""

    NONE = "none"
    HEAD = "head"
    WORKER = "worker"


class RayStatus(msgspec.Struct, frozen=True):
    """What runs here. `alive` is False once it has ended by itself; then `reason` says what it left in its log."""

    role: RayRole = RayRole.NONE
    epoch: int = 0
    address: str = ""
    """`ip:port` of the head's global control store; empty while a head is still starting."""
    alive: bool = False
    reason: str = ""


class Stay(msgspec.Struct, frozen=True):
    """Nothing to do until the epoch or what runs here changes."""


class Stop(msgspec.Struct, frozen=True):
    """End all of Ray here: it is of another epoch, role or head, or has ended by itself."""

    reason: str


class StartHead(msgspec.Struct, frozen=True):
    """Start the head; a later decision announces its address."""

    epoch: int


class Announce(msgspec.Struct, frozen=True):
    """The head runs here, and the committed address is not (or not any more) its own: commit `AnnounceHead`."""

    epoch: int
    address: str


class JoinHead(msgspec.Struct, frozen=True):
    """Start a worker node of the announced head."""

    epoch: int
    address: str


Decision = Stay | Stop | StartHead | Announce | JoinHead


def decide(me: NodeId, epoch: Epoch, here: RayStatus) -> Decision:
    """The next step towards the committed `epoch`. Stopping always comes before starting."""
    if here.role is not RayRole.NONE:
        reason = _reason_to_stop(me, epoch, here)
        if reason:
            return Stop(reason)
        if here.role is RayRole.HEAD and here.address not in ("", epoch.address):
            return Announce(epoch.number, here.address)
        return Stay()
    if epoch.number == 0:
        return Stay()
    if epoch.head == me:
        return StartHead(epoch.number)
    # Until the head has announced itself there is nothing to join.
    return JoinHead(epoch.number, epoch.address) if epoch.address else Stay()


def _reason_to_stop(me: NodeId, epoch: Epoch, here: RayStatus) -> str:
    wanted = RayRole.HEAD if epoch.head == me else RayRole.WORKER
    if here.epoch != epoch.number:
        return f"epoch {here.epoch} is over, {epoch.number or 'none'} is current"
    if here.role is not wanted:
        return f"a {here.role} runs, a {wanted} is wanted"
    if not here.alive:
        return f"it ended by itself: {here.reason}" if here.reason else "it ended by itself"
    if here.role is RayRole.WORKER and here.address != epoch.address:
        # A head that was restarted within its epoch is another Ray cluster.
        return f"the head moved from {here.address} to {epoch.address}"
    return ""
