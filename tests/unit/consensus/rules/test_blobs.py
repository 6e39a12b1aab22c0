"""Who holds which blob: only what is referenced, only by members, never published without a holder."""

import pytest
from msgspec.structs import replace

from consensus.messages import DeleteDataset, DropBlobs, HeldBlob, HoldBlobs
from consensus.queries import available_holders, holders, referenced_digests, serving_digests
from consensus.state import Digest
from tests.unit.consensus.facts import BEGUN, FITTED, PUBLISHED, A, B, C, Cluster, add, digest, publish


def test_holders_are_added_once_and_dropped() -> None:
    cluster = Cluster(*BEGUN, add())
    cluster.accept(HoldBlobs(B, (digest(1),)))
    again = cluster.state
    cluster.accept(HoldBlobs(B, (digest(1),)))
    assert cluster.state.blobs is again.blobs
    assert holders(cluster.state, digest(1)) == (A, B)
    cluster.accept(DropBlobs(A, (digest(1), digest(2))))
    assert holders(cluster.state, digest(1)) == (B,)


def test_a_blob_that_nobody_refers_to_is_ignored() -> None:
    cluster = Cluster(*BEGUN, add())
    cluster.accept(HoldBlobs(B, (digest(1), digest(77))))
    assert set(cluster.state.blobs) == {digest(1)}
    assert available_holders(cluster.state, digest(77)) == ()


def test_a_malformed_digest_is_refused() -> None:
    cluster = Cluster(*BEGUN, add())
    assert cluster.reject(HoldBlobs(A, (Digest("../../etc/passwd"),))).code == "invalid"


def test_nothing_is_added_without_a_member_that_holds_it() -> None:
    cluster = Cluster(*BEGUN)
    assert cluster.reject(add(holders=())).code == "conflict"
    assert cluster.reject(add(holders=(C,))).code == "conflict"
    cluster.accept(add(holders=(B, C)))
    assert holders(cluster.state, digest(1)) == (B,)


def test_a_model_needs_a_holder_too() -> None:
    cluster = Cluster(*FITTED)
    lost = replace(publish(), blob=HeldBlob(publish().digest, 700, (C,)))
    assert cluster.reject(lost).code == "conflict"


def test_the_size_of_a_blob_never_changes() -> None:
    cluster = Cluster(*BEGUN, add())
    other = add("wine")
    assert cluster.reject(replace(other, parts=(replace(other.parts[0], bytes=99),))).code == "invalid"
    assert cluster.reject(replace(other, blobs=(HeldBlob(digest(1), 99, (A,)),))).code == "invalid"


def test_a_shared_blob_goes_with_its_last_user() -> None:
    cluster = Cluster(*BEGUN, add("iris", 1), add("iris", 2), add("wine", 1))
    cluster.accept(DeleteDataset("iris"))
    assert set(cluster.state.blobs) == {digest(1)} == referenced_digests(cluster.state)
    cluster.accept(DeleteDataset("wine"))
    assert len(cluster.state.blobs) == 0


@pytest.mark.parametrize(("move", "serving"), [(True, {digest(900)}), (False, set())])
def test_what_is_served_is_what_an_alias_names(move: bool, serving: set[Digest]) -> None:
    cluster = Cluster(*FITTED, publish(move=move))
    assert serving_digests(cluster.state) == serving
    assert referenced_digests(cluster.state) == {digest(1), digest(900)}


def test_a_model_outlives_its_data() -> None:
    cluster = Cluster(*PUBLISHED)
    assert cluster.reject(DeleteDataset("iris")).code == "in_use"
    assert digest(900) in cluster.state.blobs
