"""A lost majority, recovered by an operator: one node's log on disk becomes that of a new cluster, it the only voter.

Offline, and one atomic step: a snapshot of everything in the log, with the lost members removed, is put in place.
"""

import uuid
from pathlib import Path

import msgspec

from consensus.codec import encode_state
from consensus.core.base import REGULAR
from consensus.core.disk import Corrupt, LocalDisk
from consensus.core.journal import FILE as JOURNAL, Journal
from consensus.core.snapshot import Snapshot, SnapshotStore, encode_snapshot
from consensus.log.replica import Replica
from consensus.messages import Entry, RemoveMember
from consensus.ports import LogError
from consensus.rules.machine import apply
from consensus.state import ClusterState, CommandId, NodeId


class CannotRecover(LogError):
    """There is nothing to recover here, or nothing to recover from; the message says which."""


class Recovery(msgspec.Struct, frozen=True):
    """What a recovery would keep, and the members `lost` that it would remove."""

    index: int
    """Of the last entry here: of several stopped nodes the one with the highest (term, index) knows most."""
    term: int
    """Of that entry."""
    lost: tuple[NodeId, ...]
    raw: bytes
    """The snapshot to put in place."""


def plan(directory: Path, me: NodeId, cluster_id: str, at: float) -> Recovery:
    """Read the log of a stopped node and say what would become of it, as cluster `cluster_id`; `at` is for the audit.

    Every entry of the log counts, also those not known to be committed: some of them may have been acknowledged. The
    new cluster id keeps the lost nodes, should they come back, from ever taking part in it with the old voters' log;
    their removal keeps their certificates out.

    Raises:
        CannotRecover: no log, no member of this id, or no other member.
        Corrupt, OSError: the log cannot be read.
    """
    if not (directory / JOURNAL).exists():
        raise CannotRecover(f"there is no Raft journal in {directory}")
    disk = LocalDisk(directory)
    journal = Journal(disk)
    try:
        return _plan(journal, SnapshotStore(disk), me, cluster_id, at)
    finally:
        journal.close()


def _plan(journal: Journal, store: SnapshotStore, me: NodeId, cluster_id: str, at: float) -> Recovery:
    snapshot = store.load()
    replica = Replica(ClusterState())
    if snapshot is not None:
        replica.decode(snapshot.state)(snapshot.index)
    elif journal[0][1] > 1:
        raise Corrupt(f"the journal begins at entry {journal[0][1]}, but there is no snapshot")
    behind = snapshot.index if snapshot is not None else 0
    tail = [entry for entry in journal[:] if entry[1] > behind]
    for command, index, _ in tail:
        if command[:1] == REGULAR:
            replica.apply(index, command[1:])
    index, term = (tail[-1][1], tail[-1][2]) if tail else (behind, snapshot.term if snapshot is not None else 0)
    lost = tuple(sorted(node for node in replica.state.members if node != me))
    if me not in replica.state.members:
        raise CannotRecover(f"node {me} is not a member by its own log: recover another node")
    if not lost:
        raise CannotRecover(f"node {me} is the only member: there is nobody to recover from, start it")
    state, last = _without(replica.state, lost, index, at)
    state = msgspec.structs.replace(state, cluster_id=cluster_id, formation="recovered")
    # A term of its own: what the lost nodes may hold at these indices is something else.
    made = Snapshot(last, max(term, journal.getCurrentTerm()) + 1, (me,), encode_state(state))
    return Recovery(index, term, lost, encode_snapshot(made))


def _without(state: ClusterState, lost: tuple[NodeId, ...], index: int, at: float) -> tuple[ClusterState, int]:
    """The state once the lost members are removed by ordinary entries, so that the audit shows it; and its index."""
    for node in lost:
        index += 1
        entry = Entry(CommandId(uuid.uuid4().hex), at, "recovery", RemoveMember(node))
        state = apply(state, index, entry).state
    return state, index


def put_in_place(directory: Path, recovery: Recovery) -> None:
    """Make it the node's log: durable when it returns, and all or nothing. The journal is left as it is: a snapshot
    that is newer than all of it replaces it at the next start (`matching`). Raises OSError."""
    disk = LocalDisk(directory)
    try:
        SnapshotStore(disk).save_received(recovery.raw)
    finally:
        disk.close()
