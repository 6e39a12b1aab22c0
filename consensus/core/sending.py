"""The leader's sending side: new entries at once, heartbeats in between, snapshots to peers that are too far behind.

Replaces the library's own loop, which sent a whole snapshot in one go and spun while one was being made.
"""

from collections.abc import Callable, Collection

from consensus.core.base import Node, RaftBase, Send, now
from consensus.core.compaction import Compactor
from consensus.core.snapshot import SnapshotStore
from consensus.wire.frames import (
    CHUNK_BYTES,
    MAX_BATCH_ENTRIES,
    AppendEntries,
    AppendReply,
    SnapshotChunk,
    SnapshotReply,
)

BATCH_BYTES = 1024 * 1024
"""A batch ends with the first command that passes this."""
WINDOW_ENTRIES = 8192
"""Entries sent ahead of what a peer has confirmed."""
WINDOW_BYTES = 8 * 1024 * 1024
"""Bytes waiting to be sent to a peer, beyond which it only gets heartbeats."""
LEARNER_PAUSE = 0.004
"""Seconds for each connected learner between two rounds to them: nobody waits for a learner to commit, so all of them
together have at most 250 rounds a second, however many they are and however many writes there are."""

Backlog = Callable[[Node], int]


class _Transfer:
    """One snapshot on its way to one peer, one chunk at a time: `sent` is past the chunk in flight."""

    def __init__(self, index: int, raw: bytes) -> None:
        self.index, self.raw = index, raw
        self.confirmed = self.sent = 0


class LogSender:
    """Sends for `core` while it leads.

    As long as it is not known where a peer's log agrees, one message is on its way to it at a time (a probe);
    once the peer has confirmed one, entries stream to it ahead of its answers.
    """

    def __init__(
        self, core: RaftBase, store: SnapshotStore, compactor: Compactor, send: Send, backlog: Backlog
    ) -> None:
        self._core, self._store, self._compactor = core, store, compactor
        self._send, self._backlog = send, backlog
        self._told: dict[Node, int] = {}
        self._streaming: set[Node] = set()
        self._probed: dict[Node, int] = {}
        self._transfers: dict[Node, _Transfer] = {}
        self._learners_next = 0.0

    def reset(self) -> None:
        """A leadership begins: nothing is known of what the peers were told."""
        self._told.clear()
        self._streaming.clear()
        self._probed.clear()
        self._transfers.clear()
        self._store.release()

    def forget(self, node: Node) -> None:
        """The connection to `node` ended: what was in flight is lost, and it may come back with less."""
        if node in self._core.match_index:
            self._core.match_index[node] = 0
        self._told.pop(node, None)
        self._streaming.discard(node)
        self._probed.pop(node, None)
        self._end_transfer(node)

    def _end_transfer(self, node: Node) -> None:
        """`node` has confirmed entries, so it has the snapshot or needs none; or it is gone."""
        if self._transfers.pop(node, None) is not None and not self._transfers:
            self._store.release()

    def heartbeat(self) -> None:
        """Something to every connected peer."""
        for node in self._connected(self._core.others) + self._connected(self._core.learners):
            self._serve(node, heartbeat=True)

    def send_new(self) -> None:
        """New entries, and a new commit index, to those who lack them: voters at once, learners in rounds."""
        for node in self._connected(self._core.others):
            self._serve(node, heartbeat=False)
        if now() >= self._learners_next:
            learners = self._connected(self._core.learners)
            self._learners_next = now() + LEARNER_PAUSE * len(learners)
            for node in learners:
                self._serve(node, heartbeat=False)

    @property
    def next_round(self) -> float:
        """When `send_new` has something for learners; infinity while they have all."""
        learners = self._core.learners & self._core.connected
        return self._learners_next if any(map(self._lacks, learners)) else float("inf")

    def _connected(self, nodes: Collection[Node]) -> list[Node]:
        # Sorted: the order of a set would make the simulator's runs irreproducible.
        return sorted((node for node in nodes if node in self._core.connected), key=lambda node: str(node.id))

    def _lacks(self, node: Node) -> bool:
        """Whether `_serve` would send something now, heartbeats aside."""
        core = self._core
        if core.next_index[node] <= core.log[0][1]:
            transfer = self._transfers.get(node)
            return transfer is None or transfer.sent == transfer.confirmed
        if node in self._streaming:
            return self._may_send(node) or self._told.get(node) != core.commit_index
        return self._probed.get(node) != core.next_index[node] - 1

    def _serve(self, node: Node, *, heartbeat: bool) -> None:
        core = self._core
        if core.next_index[node] <= core.log[0][1]:
            self._serve_snapshot(node, heartbeat=heartbeat)
            return
        self._end_transfer(node)
        if node in self._streaming:
            self._stream(node, heartbeat=heartbeat)
        elif self._probed.get(node) != core.next_index[node] - 1:
            self._probed[node] = core.next_index[node] - 1
            self._send_batch(node, with_entries=True)
        elif heartbeat:
            self._send_batch(node, with_entries=False)

    def _stream(self, node: Node, *, heartbeat: bool) -> None:
        sent = False
        while self._may_send(node):
            # Optimistic: what is lost with a connection is asked for again by the peer's next answer.
            self._core.next_index[node] += self._send_batch(node, with_entries=True)
            sent = True
        if not sent and (heartbeat or self._told.get(node) != self._core.commit_index):
            self._send_batch(node, with_entries=False)

    def _may_send(self, node: Node) -> bool:
        core, following = self._core, self._core.next_index[node]
        return (
            following <= self._last_for(node)
            and following - 1 - core.match_index[node] < WINDOW_ENTRIES
            and self._backlog(node) < WINDOW_BYTES
        )

    def _send_batch(self, node: Node, *, with_entries: bool) -> int:
        """Send what follows the peer's log, or only ask whether it agrees so far; the number of entries sent."""
        core = self._core
        first, following = core.log[0][1], core.next_index[node]
        _, index, term = core.log[following - 1 - first]
        entries = self._batch(following - first, self._last_for(node) + 1 - first) if with_entries else ()
        self._send(node, AppendEntries(core.term, core.commit_index, index, term, entries))
        self._told[node] = core.commit_index
        return len(entries)

    def _last_for(self, node: Node) -> int:
        """A learner gets what is committed: it need not be told of the same entries twice."""
        core = self._core
        return core.last_index if node in core.others else min(core.commit_index, core.last_index)

    def _batch(self, position: int, end: int) -> tuple[tuple[int, bytes], ...]:
        batch, size = [], 0
        for command, _, term in self._core.log[position : min(end, position + MAX_BATCH_ENTRIES)]:
            batch.append((term, command))
            size += len(command)
            if size >= BATCH_BYTES:
                break
        return tuple(batch)

    def on_reply(self, node: Node, reply: AppendReply) -> None:
        """A peer of this leadership confirmed entries, or refused a message."""
        core = self._core
        match = core.match_index[node]
        if reply.matched:
            self._end_transfer(node)
            core.match_index[node] = match = max(match, min(reply.index, core.last_index))
            # Out of a probe: what was sent with it counts from here on.
            core.next_index[node] = max(core.next_index[node], match + 1)
            self._streaming.add(node)
            self._probed.pop(node, None)
        elif reply.previous > match and (node in self._streaming or reply.previous == core.next_index[node] - 1):
            # Messages that were sent after the refused one are refused too, with other advice: not heeded, or
            # the last of them would always win, and the log never be compared further back.
            self._streaming.discard(node)
            self._probed.pop(node, None)
            core.next_index[node] = max(match, min(reply.index - 1, core.last_index)) + 1

    # ------------------------------------------------------------ snapshots
    def _serve_snapshot(self, node: Node, *, heartbeat: bool) -> None:
        transfer = self._transfers.get(node)
        if transfer is None:
            transfer = self._transfers[node] = _Transfer(self._compactor.snapshot_index, self._store.raw())
        if transfer.sent == transfer.confirmed:
            self._send_chunk(node, transfer, CHUNK_BYTES)
        elif heartbeat:
            self._send_chunk(node, transfer, 0)

    def _send_chunk(self, node: Node, transfer: _Transfer, size: int) -> None:
        data = transfer.raw[transfer.confirmed : transfer.confirmed + size]
        chunk = SnapshotChunk(self._core.term, transfer.index, transfer.confirmed, len(transfer.raw), data)
        if self._send(node, chunk) and data:
            transfer.sent = transfer.confirmed + len(data)

    def on_snapshot_reply(self, node: Node, reply: SnapshotReply) -> None:
        """Go on from what the peer has; what it lost, or did not take, is sent again."""
        transfer = self._transfers.get(node)
        if transfer is None or reply.index != transfer.index:
            return
        # A heartbeat sent behind the chunk in flight is answered by asking for that chunk: a full disk did not take it.
        not_taken = reply.offset == reply.answered == transfer.confirmed
        lost = reply.offset < transfer.confirmed or not_taken
        if lost or transfer.sent in (reply.offset, reply.answered):
            transfer.confirmed = transfer.sent = min(reply.offset, len(transfer.raw))
            if transfer.confirmed < len(transfer.raw):
                self._send_chunk(node, transfer, CHUNK_BYTES)
