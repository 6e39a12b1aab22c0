"""The follower's side of replication: makes its log equal to the leader's, entry by entry or by a snapshot.

Replaces the library's handler, which truncated entries that it had acknowledged and let a snapshot message move
the commit index over entries that nobody had compared.
"""

import logging
from collections.abc import Sequence

from consensus.core.base import Node, RaftBase, Send, now
from consensus.core.compaction import Compactor, StateMachine
from consensus.core.configuration import Electorate, is_change
from consensus.core.disk import Corrupt
from consensus.core.snapshot import Assembly, Snapshot, SnapshotStore, decode_snapshot
from consensus.wire.frames import AppendEntries, AppendReply, SnapshotChunk, SnapshotReply

log = logging.getLogger(__name__)

REFUSE_SECONDS = 5.0
"""Pause after a snapshot that could not be installed (a full disk), or it would be sent again without end."""


class Diverged(Exception):
    """A committed entry would have to change: a bug or a damaged disk. The node must stop at once."""


class Matcher:
    """Changes the log, commit index and state of `core` on the word of a leader that `core` has accepted."""

    def __init__(
        self,
        core: RaftBase,
        store: SnapshotStore,
        compactor: Compactor,
        machine: StateMachine,
        electorate: Electorate,
        send: Send,
    ) -> None:
        self._core, self._store, self._compactor, self._machine = core, store, compactor, machine
        self._electorate, self._send = electorate, send
        self._assembly = Assembly()
        self._refuse_until = 0.0

    # ------------------------------------------------------------ entries
    def append(self, node: Node, message: AppendEntries) -> None:
        """Match, append, advance the commit index and answer. Raises Diverged."""
        ask_from = self._mismatch(message.previous_index, message.previous_term)
        if ask_from is not None:
            self._send(node, AppendReply(self._core.term, False, ask_from, message.previous_index))
            return
        if self._append(message.previous_index, message.entries):
            self._electorate.recompute()
        # Only up to here is this log known to equal the leader's: what lies behind may conflict with it.
        matched = message.previous_index + len(message.entries)
        commit = min(message.commit_index, matched)
        if commit > self._core.commit_index:
            self._core.set_commit(commit)
        self._confirm(node, matched)

    def _mismatch(self, index: int, term: int) -> int | None:
        """Where the leader should go on instead, None if the entry before the new ones is the same here."""
        core = self._core
        first = core.log[0][1]
        if index > core.last_index:
            return core.last_index + 1
        if index < first:
            return core.commit_index + 1
        mine = core.log[index - first][2]
        if mine == term:
            return None
        if index <= core.commit_index:
            raise Diverged(f"entry {index} is committed here in term {mine}, the leader has it in term {term}")
        # Straight back to what is surely equal; the library went one entry per round trip.
        return core.commit_index + 1

    def _append(self, previous: int, entries: Sequence[tuple[int, bytes]]) -> bool:
        """Skip what is there already, cut only from a real conflict on, append the rest. True when a change of
        voters came or went."""
        journal = self._core.log
        first, last = journal[0][1], self._core.last_index
        new = 0
        while new < len(entries) and previous + 1 + new <= last:
            if journal[previous + 1 + new - first][2] != entries[new][0]:
                break
            new += 1
        if new == len(entries):
            return False
        start = previous + 1 + new
        changed = False
        if start <= last:
            changed = self._cut(start)
        for index, (term, command) in enumerate(entries[new:], start):
            journal.add(command, index, term)
            changed = changed or is_change(command)
        return changed

    def _cut(self, start: int) -> bool:
        journal, committed = self._core.log, self._core.commit_index
        if start <= committed:
            raise Diverged(f"the leader's entry {start} conflicts with a committed one (up to {committed})")
        dropped = journal[start - journal[0][1] :]
        journal.cut_from(start)
        return any(is_change(command) for command, _, _ in dropped)

    def _confirm(self, node: Node, index: int) -> None:
        self._send(node, AppendReply(self._core.term, True, index))

    # ------------------------------------------------------------ snapshots
    def receive(self, node: Node, chunk: SnapshotChunk) -> None:
        """Take one chunk; install the snapshot once it is whole."""
        core = self._core
        if core.commit_index >= chunk.index:
            # All of it is here already, and what is committed equals every later leader's log.
            self._confirm(node, core.commit_index)
            return
        if now() < self._refuse_until:
            return
        offset = self._assembly.add(chunk)
        raw = self._assembly.take()
        if raw is None:
            self._send(node, SnapshotReply(core.term, chunk.index, offset, chunk.offset + len(chunk.data)))
        elif self._install(raw, chunk.index):
            self._confirm(node, chunk.index)

    def _install(self, raw: bytes, index: int) -> bool:
        """Durable first, then in force. A failure changes nothing; the leader starts over a little later."""
        try:
            snapshot = _announced(decode_snapshot(raw), index)
            restore = self._machine.decode(snapshot.state)
            self._store.save_received(raw)
        except (Corrupt, OSError) as error:
            self._refuse_until = now() + REFUSE_SECONDS
            log.warning("snapshot.refused index=%d error=%s", index, error)
            return False
        restore(snapshot.index)
        self._adopt(snapshot)
        log.info("snapshot.installed index=%d bytes=%d", index, len(raw))
        return True

    def load(self) -> None:
        """Start from this node's own snapshot, if there is one. Raises Corrupt."""
        snapshot = self._store.load()
        begins = self._core.log[0][1]
        if begins > (1 if snapshot is None else snapshot.index):
            have = "there is no snapshot" if snapshot is None else f"the snapshot ends at {snapshot.index}"
            raise Corrupt(f"the journal begins at entry {begins}, but {have}: entries are missing")
        if snapshot is None:
            return
        self._machine.decode(snapshot.state)(snapshot.index)
        self._adopt(snapshot)

    def _adopt(self, snapshot: Snapshot) -> None:
        """Raft figure 13, rules 6 and 7: keep the entries behind the snapshot only if its last one is in the log."""
        core = self._core
        position = snapshot.index - core.log[0][1]
        if not (0 <= position < len(core.log) and core.log[position][2] == snapshot.term):
            core.log.rebase(snapshot.index, snapshot.term)
        self._electorate.applied = snapshot.voters
        core.applied_index = snapshot.index
        core.set_commit(max(core.commit_index, snapshot.index))
        self._compactor.installed(snapshot.index)
        self._electorate.recompute()


def _announced(snapshot: Snapshot, index: int) -> Snapshot:
    if snapshot.index != index:
        raise Corrupt(f"a snapshot of index {snapshot.index} was announced as {index}")
    return snapshot
