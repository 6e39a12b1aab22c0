"""The leader's sending side: new entries at once, heartbeats in between, snapshots to peers that are too far behind.

Replaces the engine's own loop, which sent a whole snapshot in one go and spun while one was being made.
"""

from collections.abc import Callable

from consensus.compaction import Compactor
from consensus.engine import EngineBase, Node, Send
from consensus.snapshot import SnapshotStore
from consensus.wire import CHUNK_BYTES, MAX_BATCH_ENTRIES, AppendEntries, SnapshotChunk, SnapshotReply

BATCH_BYTES = 1024 * 1024
"""A batch ends with the first command that passes this."""
WINDOW_ENTRIES = 8192
"""Entries sent ahead of what a peer has confirmed."""
WINDOW_BYTES = 8 * 1024 * 1024
"""Bytes waiting to be sent to a peer, beyond which it only gets heartbeats."""

Backlog = Callable[[Node], int]


class _Transfer:
    """One snapshot on its way to one peer, one chunk at a time: `sent` is past the chunk in flight."""

    def __init__(self, index: int, raw: bytes) -> None:
        self.index, self.raw = index, raw
        self.confirmed = self.sent = 0


class Replicator:
    """Sends for `core` while it leads."""

    def __init__(
        self, core: EngineBase, store: SnapshotStore, compactor: Compactor, send: Send, backlog: Backlog
    ) -> None:
        self._core, self._store, self._compactor = core, store, compactor
        self._send, self._backlog = send, backlog
        self._told: dict[Node, int] = {}
        self._transfers: dict[Node, _Transfer] = {}

    def reset(self) -> None:
        """A leadership begins: nothing is known of what the peers were told."""
        self._told.clear()
        self._transfers.clear()
        self._store.release()

    def forget(self, node: Node) -> None:
        """The connection to `node` ended: what was in flight is lost."""
        self._told.pop(node, None)
        self.end_transfer(node)

    def end_transfer(self, node: Node) -> None:
        """`node` has confirmed entries, so it has the snapshot or needs none; or it is gone."""
        if self._transfers.pop(node, None) is not None and not self._transfers:
            self._store.release()

    def heartbeat(self) -> None:
        """Something to every connected peer."""
        for node in self._peers():
            self._serve(node, heartbeat=True)

    def send_new(self) -> None:
        """New entries, and a new commit index, to those who lack them."""
        for node in self._peers():
            self._serve(node, heartbeat=False)

    def _peers(self) -> list[Node]:
        # Sorted: the order of a set would make the simulator's runs irreproducible.
        core = self._core
        return sorted((core.others | core.learners) & core.connected, key=lambda node: str(node.id))

    def _serve(self, node: Node, *, heartbeat: bool) -> None:
        core = self._core
        if core.next_index[node] <= core.log[0][1]:
            self._serve_snapshot(node, heartbeat=heartbeat)
            return
        self.end_transfer(node)
        sent = False
        while self._may_send(node):
            self._send_batch(node, with_entries=True)
            sent = True
        if not sent and (heartbeat or self._told.get(node) != core.commit_index):
            self._send_batch(node, with_entries=False)

    def _may_send(self, node: Node) -> bool:
        core, following = self._core, self._core.next_index[node]
        return (
            following <= core.last_index
            and following - 1 - core.match_index[node] < WINDOW_ENTRIES
            and self._backlog(node) < WINDOW_BYTES
        )

    def _send_batch(self, node: Node, *, with_entries: bool) -> None:
        core = self._core
        first, following = core.log[0][1], core.next_index[node]
        previous = core.log[following - 1 - first]
        entries = self._batch(following - first) if with_entries else ()
        message = AppendEntries(core.term, core.commit_index, previous[1], previous[2], entries)
        # Optimistic: what is lost with a connection is asked for again by the peer's next answer.
        self._send(node, message)
        core.next_index[node] = following + len(entries)
        self._told[node] = core.commit_index

    def _batch(self, position: int) -> tuple[tuple[int, bytes], ...]:
        batch, size = [], 0
        for command, _, term in self._core.log[position : position + MAX_BATCH_ENTRIES]:
            batch.append((term, command))
            size += len(command)
            if size >= BATCH_BYTES:
                break
        return tuple(batch)

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
        lost = reply.offset < transfer.confirmed
        if lost or transfer.sent in (reply.offset, reply.answered):
            transfer.confirmed = transfer.sent = min(reply.offset, len(transfer.raw))
            if transfer.confirmed < len(transfer.raw):
                self._send_chunk(node, transfer, CHUNK_BYTES)
