"""Makes a new blob durable on enough nodes before its fact is committed."""

import asyncio
from collections.abc import Sequence

from consensus.ports import Log
from consensus.queries import active_members
from consensus.state import Digest, NodeId
from node import logs
from node.blobs.placement import ranking
from node.blobs.store import BlobStore
from node.blobs.transfer import Transfer
from node.peering.words import PeerError

log = logs.get("node.blobs.distribute")

DURABLE_COPIES = 2
"""Before a write is acknowledged: it survives the loss of any one disk. The replicators make the other copies."""


class NotDurable(Exception):
    """Too few nodes took the blob. It stays here, unreferenced, and is cleared away later; try again."""


class Distributor:
    """Puts blobs to their owners; this node's own copy counts, as it stays until all owners hold theirs."""

    def __init__(self, me: NodeId, facts: Log, blobs: BlobStore, transfer: Transfer, copies: int) -> None:
        self._me = me
        self._facts = facts
        self._blobs = blobs
        self._transfer = transfer
        self._copies = min(DURABLE_COPIES, copies)

    async def store_durably(self, digest: Digest) -> tuple[NodeId, ...]:
        """Returns the holders once two nodes (all, if there are fewer) have the blob on disk.

        Raises:
            BlobMissing: it is not in the local store.
            NotDurable: too few nodes took it.
        """
        self._blobs.size(digest)
        self._blobs.touch(digest)
        members = [member.id for member in active_members(self._facts.state)]
        needed = min(self._copies, len(members)) - (self._me in members)
        taken = await self._put_to(digest, self._candidates(digest, members), max(0, needed))
        return tuple(sorted({self._me, *taken}))

    def _candidates(self, digest: Digest, members: Sequence[NodeId]) -> list[NodeId]:
        """Owners first, then who would be next; those that are not connected at the end, whatever their rank."""
        connected = frozenset(self._facts.status.connected)
        others = [node for node in ranking(digest, members) if node != self._me]
        return sorted(others, key=lambda node: node not in connected)

    async def _put_to(self, digest: Digest, candidates: list[NodeId], needed: int) -> list[NodeId]:
        taken: list[NodeId] = []
        failures: list[str] = []
        while len(taken) < needed:
            chosen, candidates = candidates[: needed - len(taken)], candidates[needed - len(taken) :]
            if not chosen:
                raise NotDurable(f"blob {digest} is on too few nodes ({'; '.join(failures) or 'no other is known'})")
            answers = await asyncio.gather(*(self._put(node, digest) for node in chosen))
            taken += [node for node, failure in zip(chosen, answers, strict=True) if failure is None]
            failures += [f"{node}: {failure}" for node, failure in zip(chosen, answers, strict=True) if failure]
        return taken

    async def _put(self, node: NodeId, digest: Digest) -> str | None:
        """None, or why the node did not take it."""
        try:
            await self._transfer.put(node, digest)
        except PeerError as error:
            log.warning("blob.not_put", digest=digest, node=node, reason=str(error))
            return str(error) or type(error).__name__
        return None
