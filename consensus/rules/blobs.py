"""Rules of who holds which blob. `state.blobs` has exactly the digests that datasets and models refer to, so that
"does anybody refer to it" is one look-up; `register` and `forget_unreferenced` keep it so."""

from collections.abc import Iterable

from immutables import Map
from msgspec.structs import replace

from consensus.messages import DropBlobs, HeldBlob, HoldBlobs
from consensus.queries import referenced_digests
from consensus.rules.checks import Change, Stamp, check_count, check_digest, refuse, shown
from consensus.state import Blob, ClusterState, Digest, NodeId

_MAX_DIGESTS = 10_000

Blobs = Map[Digest, Blob]


def hold_blobs(state: ClusterState, command: HoldBlobs, stamp: Stamp) -> Change:
    _check_node(state, command.node)
    _check_digests(command.digests)
    found = state.blobs
    for digest in command.digests:
        blob = found.get(digest)
        if blob is not None and command.node not in blob.holders:
            found = found.set(digest, _with_holders(blob, (command.node,)))
    return Change(state if found is state.blobs else replace(state, blobs=found))


def drop_blobs(state: ClusterState, command: DropBlobs, stamp: Stamp) -> Change:
    _check_node(state, command.node)
    _check_digests(command.digests)
    found = state.blobs
    for digest in command.digests:
        blob = found.get(digest)
        if blob is not None and command.node in blob.holders:
            found = found.set(digest, _without(blob, command.node))
    return Change(state if found is state.blobs else replace(state, blobs=found))


def register(state: ClusterState, needed: Iterable[tuple[Digest, int]], held: Iterable[HeldBlob]) -> Blobs:
    """The blobs with all of `needed` (digest, bytes) in them, and the holders that `held` names.

    Holders that are not members are left out (one may have been removed meanwhile); a blob that then has no
    holder at all is refused: a fact must never be committed before its bytes are durable."""
    told = {blob.digest: blob for blob in held}
    found = state.blobs
    for digest, size in needed:
        check_digest("digest", digest)
        check_count("bytes of a blob", size)
        blob = found.get(digest, Blob(size, ()))
        report = told.get(digest)
        if blob.bytes != size or (report is not None and report.bytes != size):
            refuse("invalid", f"blob {digest} cannot have {size} bytes here and another size elsewhere")
        members = () if report is None else tuple(node for node in report.holders if node in state.members)
        blob = _with_holders(blob, members)
        if not blob.holders:
            refuse("conflict", f"no member holds blob {digest}")
        found = found.set(digest, blob)
    return found


def forget_unreferenced(state: ClusterState, candidates: Iterable[Digest]) -> ClusterState:
    """`state` without those of `candidates` that nothing in it refers to any more."""
    referenced = referenced_digests(state)
    found = state.blobs
    for digest in set(candidates) - referenced:
        if digest in found:
            found = found.delete(digest)
    return replace(state, blobs=found)


def without_holder(found: Blobs, node: NodeId) -> Blobs:
    changed = found.mutate()
    for digest, blob in found.items():
        if node in blob.holders:
            changed[digest] = _without(blob, node)
    return changed.finish()


def _with_holders(blob: Blob, nodes: tuple[NodeId, ...]) -> Blob:
    return Blob(blob.bytes, tuple(sorted({*blob.holders, *nodes})))


def _without(blob: Blob, node: NodeId) -> Blob:
    return Blob(blob.bytes, tuple(holder for holder in blob.holders if holder != node))


def _check_node(state: ClusterState, node: NodeId) -> None:
    if node in state.revoked:
        refuse("revoked", f"node {node} was removed for good")
    if node not in state.members:
        refuse("not_found", f"no member has the id {shown(node)}")


def _check_digests(digests: tuple[Digest, ...]) -> None:
    check_count("number of digests", len(digests), 0, _MAX_DIGESTS)
    for digest in digests:
        check_digest("digest", digest)
