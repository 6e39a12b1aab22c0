"""Every node computes the same owners, and a change of one member moves only that member's share."""

import hashlib
from collections import Counter

from hypothesis import given, strategies as st

from consensus.state import Digest, NodeId
from node.blobs.placement import owners, ranking

digests = st.binary(min_size=1, max_size=8).map(lambda raw: Digest(hashlib.sha256(raw).hexdigest()))
members = st.sets(st.integers(0, 10_000).map(lambda n: NodeId(f"{n:032x}")), min_size=1, max_size=9).map(list)
copies = st.integers(1, 5)


@given(digests, members, copies, st.randoms())
def test_owners_are_distinct_members_whatever_the_order(digest, members, copies, random) -> None:  # type: ignore[no-untyped-def]
    found = owners(digest, members, copies)
    assert len(set(found)) == len(found) == min(copies, len(members))
    assert set(found) <= set(members)
    random.shuffle(members)
    assert owners(digest, members, copies) == found


@given(digests, members, copies)
def test_a_node_that_leaves_is_replaced_by_one_other(digest: Digest, members: list[NodeId], copies: int) -> None:
    before = owners(digest, members, copies)
    for gone in members:
        after = owners(digest, [node for node in members if node != gone], copies)
        assert set(before) - {gone} <= set(after)
        if gone not in before:
            assert after == before


@given(digests, members, copies, st.integers(20_000, 30_000))
def test_a_node_that_comes_takes_at_most_one_place(
    digest: Digest, members: list[NodeId], copies: int, number: int
) -> None:
    new = NodeId(f"{number:032x}")
    before, after = owners(digest, members, copies), owners(digest, [*members, new], copies)
    assert set(after) - set(before) <= {new}
    assert [node for node in ranking(digest, [*members, new]) if node != new] == list(ranking(digest, members))


def test_the_load_is_even() -> None:
    nodes = [NodeId(f"{n:032x}") for n in range(5)]
    count = Counter(
        owner for n in range(2000) for owner in owners(Digest(hashlib.sha256(str(n).encode()).hexdigest()), nodes, 3)
    )
    assert all(1000 < count[node] < 1400 for node in nodes), count
