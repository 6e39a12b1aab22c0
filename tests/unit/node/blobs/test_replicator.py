"""Copies: durable on two nodes before a write is acknowledged, then on all owners; repaired when something fails."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from consensus.messages import DeleteDataset, SetMemberStatus
from consensus.queries import active_members
from consensus.state import Digest, MemberStatus
from node.blobs.distribute import NotDurable
from node.blobs.placement import owners
from node.blobs.replicator import GRACE_SECONDS, Pauses
from tests.unit.node.cluster import Flock, flock
from tests.unit.node.fabric import Node
from tests.unit.node.wait import eventually

CONTENT = b"column\n1\n" * 1000
OFTEN = Pauses(settle=0.01, idle=0.05, owing=0.05, retry_first=0.05)


@pytest.fixture
async def five(tmp_path: Path) -> AsyncIterator[Flock]:
    async with flock(tmp_path, 5, pauses=OFTEN) as made:
        yield made


def owning(flock: Flock, digest: Digest) -> set[str]:
    return set(owners(digest, [member.id for member in active_members(flock.log.state)], 3))


def node(flock: Flock, number: str) -> Node:
    return next(node for node in flock.nodes if node.id == number)


async def stored(flock: Flock, content: bytes = CONTENT) -> Digest:
    """As an upload does it: keep, make durable, commit."""
    digest = await flock.first.keep(content)
    holders = await flock.distributors[flock.first.id].store_durably(digest)
    await flock.add_dataset(digest, holders)
    return digest


# ---------------------------------------------------------------- durable before acknowledged
async def test_a_write_is_on_two_disks_and_one_is_an_owner(five: Flock) -> None:
    digest = await five.first.keep(CONTENT)
    holders = await five.distributors[five.first.id].store_durably(digest)
    assert len(holders) == 2
    assert five.keepers(digest) == set(holders)
    assert set(holders) - {five.first.id} <= owning(five, digest)


async def test_dead_owners_are_replaced_by_the_next_in_rank(five: Flock) -> None:
    digest = await five.first.keep(CONTENT)
    for dead in owning(five, digest) - {five.first.id}:
        await node(five, dead).stop()
        if five.network.has_quorum(five.first.id):
            five.network.kill(node(five, dead).id)
    holders = await five.distributors[five.first.id].store_durably(digest)
    assert len(holders) == 2
    assert five.keepers(digest) == set(holders)


async def test_alone_in_sight_of_five_nothing_is_durable(five: Flock) -> None:
    digest = await five.first.keep(CONTENT)
    for other in five.nodes[1:]:
        await other.stop()
    with pytest.raises(NotDurable, match="too few nodes"):
        await five.distributors[five.first.id].store_durably(digest)


async def test_a_single_node_is_enough_where_there_is_no_other(tmp_path: Path) -> None:
    async with flock(tmp_path, 1) as alone:
        digest = await alone.first.keep(CONTENT)
        assert await alone.distributors[alone.first.id].store_durably(digest) == (alone.first.id,)


# ---------------------------------------------------------------- repair
async def test_all_owners_get_their_copy_and_say_so(five: Flock) -> None:
    five.replicate()
    digest = await stored(five)
    await eventually(lambda: owning(five, digest) <= five.holders(digest))
    assert owning(five, digest) <= five.keepers(digest)
    await eventually(lambda: all(replicator.owed == 0 for replicator in five.replicators.values()))


async def test_the_share_of_a_node_that_is_away_moves(five: Flock) -> None:
    five.replicate()
    digest = await stored(five)
    await eventually(lambda: owning(five, digest) <= five.holders(digest))
    gone = sorted(owning(five, digest) - {five.first.id})[0]
    await node(five, gone).stop()
    five.network.kill(node(five, gone).id)
    await five.log.propose(SetMemberStatus(node(five, gone).id, MemberStatus.AWAY), actor="test")
    assert gone not in owning(five, digest)
    await eventually(
        lambda: owning(five, digest) <= five.holders(digest) and owning(five, digest) <= five.keepers(digest)
    )


async def test_a_copy_that_is_lost_is_fetched_again(five: Flock) -> None:
    five.replicate()
    digest = await stored(five)
    await eventually(lambda: owning(five, digest) <= five.holders(digest))
    victim = node(five, sorted(owning(five, digest))[0])
    victim.blobs.path(digest).write_bytes(b"rot")
    assert not await victim.blobs.verify(digest)
    five.replicators[victim.id].poke()
    await eventually(lambda: victim.blobs.has(digest) and victim.id in five.holders(digest))
    assert await victim.blobs.verify(digest, again=True)


async def test_a_lost_last_copy_is_an_alarm_until_it_is_back(tmp_path: Path) -> None:
    async with flock(tmp_path, 1, pauses=OFTEN) as alone:
        alone.replicate()
        digest = await stored(alone)
        only = alone.replicators[alone.first.id]
        assert only.lost() == frozenset()
        await alone.first.blobs.remove(digest)
        only.poke()
        await eventually(lambda: only.lost() == {digest} and only.owed == 1)
        await alone.first.keep(CONTENT)
        only.poke()
        await eventually(lambda: only.lost() == frozenset() and alone.holders(digest) == {alone.first.id})


async def test_a_dead_holder_costs_retries_not_the_loop(five: Flock) -> None:
    """The holder is connected by the log's word, and its peer port is gone: others must be asked, again and again."""
    digest = await stored(five)
    holders = five.holders(digest)
    for holder in holders:
        await node(five, holder).api.stop()
    five.replicate()
    waiting = [five.replicators[owner] for owner in five.logs if owner in owning(five, digest) - holders]
    assert waiting
    await eventually(lambda: all(replicator._retry for replicator in waiting))
    for holder in holders:
        await node(five, holder).start()
    await eventually(lambda: owning(five, digest) <= five.holders(digest))


# ---------------------------------------------------------------- clearing
async def test_what_nothing_refers_to_goes_after_a_while_not_before(five: Flock) -> None:
    five.replicate()
    kept = await stored(five)
    orphan = await five.first.keep(b"an upload that never came to its commit")
    await eventually(lambda: orphan in five.replicators[five.first.id].garbage.since)
    assert five.first.blobs.has(orphan)
    five.now += GRACE_SECONDS + 1
    await eventually(lambda: not five.first.blobs.has(orphan))
    await five.log.propose(DeleteDataset("iris"), actor="test")
    await eventually(lambda: all(kept in five.replicators[node.id].garbage.since for node in five.nodes_with(kept)))
    five.now += GRACE_SECONDS + 1
    await eventually(lambda: five.keepers(kept) == set())


async def test_an_old_orphan_that_is_uploaded_again_is_not_dropped_under_the_upload(five: Flock) -> None:
    """Its peers answer "here already": from then on they must keep it, however old it is."""
    first, second = five.nodes[0], five.nodes[1]
    digest = await first.keep(CONTENT)
    await second.keep(CONTENT)
    (forgotten,) = {await node.keep(b"as old, and touched by nobody") for node in (first, second)}
    five.replicate()
    rounds = [five.replicators[node.id] for node in (first, second)]
    await eventually(lambda: all({digest, forgotten} <= each.garbage.since.keys() for each in rounds))
    five.now += GRACE_SECONDS - 60
    await first.transfer.put(second.id, digest)
    five.distributors[first.id]._blobs.touch(digest)
    await eventually(lambda: all(five.clock() - each.garbage.since.get(digest, 0) < 100 for each in rounds))
    five.now += 120
    await eventually(lambda: not {first.id, second.id} & five.keepers(forgotten))
    (later,) = {await node.keep(b"seen by the round after that") for node in (first, second)}
    await eventually(lambda: all(later in each.garbage.since for each in rounds))
    assert {first.id, second.id} <= five.keepers(digest)


async def test_a_spare_copy_goes_only_when_all_owners_have_theirs(five: Flock) -> None:
    number = 0
    while five.first.id in owning(five, digest := await five.first.keep(b"%d" % number)):
        number += 1
    await five.add_dataset(digest, (five.first.id,))
    five.replicate()
    await eventually(lambda: owning(five, digest) <= five.holders(digest))
    await eventually(lambda: digest in five.replicators[five.first.id].garbage.since)
    assert five.first.id in five.holders(digest)
    five.now += GRACE_SECONDS + 1
    await eventually(lambda: not five.first.blobs.has(digest))
    assert five.holders(digest) == owning(five, digest)


async def test_without_a_quorum_nothing_is_cleared(five: Flock) -> None:
    five.replicate()
    orphan = await five.first.keep(b"referred to by a fact not seen yet")
    first = five.replicators[five.first.id]
    await eventually(lambda: orphan in first.garbage.since)
    five.network.partition({five.first.id}, {node.id for node in five.nodes[1:]})
    five.now += GRACE_SECONDS + 1
    await eventually(lambda: not first.garbage.since)
    assert five.first.blobs.has(orphan)
