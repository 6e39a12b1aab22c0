"""Rules of the epoch: the fencing number of everything that Ray does. It only ever grows by one."""

from msgspec.structs import replace

from consensus.messages import AnnounceHead, BeginEpoch
from consensus.rules.checks import Change, Stamp, check_text, event, refuse
from consensus.rules.members import known_member
from consensus.rules.rotation import digest_in_force
from consensus.state import ClusterState, Epoch


def begin_epoch(state: ClusterState, command: BeginEpoch, stamp: Stamp) -> Change:
    current = state.epoch.number
    if command.number <= current:
        refuse("stale_epoch", f"epoch {command.number} cannot begin: {current} is current")
    if command.number > current + 1:
        refuse("conflict", f"epoch {command.number} cannot begin: the next one is {current + 1}")
    head = known_member(state, command.head)
    after = replace(state, epoch=Epoch(command.number, head.id, "", stamp.at, digest_in_force(state.rotation)))
    return Change(after, (event(stamp, "epoch.begun", str(command.number), head=head.id, name=head.name),))


def announce_head(state: ClusterState, command: AnnounceHead, stamp: Stamp) -> Change:
    check_current(state, command.number)
    check_text("address", command.address, most=255)
    if state.epoch.address == command.address:
        return Change(state)
    after = replace(state, epoch=replace(state.epoch, address=command.address))
    detail = event(stamp, "epoch.announced", str(command.number), head=state.epoch.head, address=command.address)
    return Change(after, (detail,))


def check_current(state: ClusterState, epoch: int) -> None:
    """Refuses what belongs to any epoch but the current one; before the first there is none."""
    current = state.epoch.number
    if epoch != current or current == 0:
        refuse("stale_epoch", f"epoch {epoch} is not the current one ({current or 'none has begun'})")
