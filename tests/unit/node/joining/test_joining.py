"""What a node remembers of its cluster, and that it does not vote again after it has lost its log."""

import asyncio
from pathlib import Path
from typing import cast

import msgspec
import pytest
from msgspec.structs import replace

from consensus.state import NodeId
from discovery.formation import SPLIT_PATIENCE_SECONDS
from discovery.peer import Peer
from node import config
from node.joining.joining import RECOVERING, CannotStart, ClusterRecord, Joiner, note_log, read_record, require_log
from node.joining.promises import Promises
from node.peering.client import PeerClient
from node.peering.greeter import Greeter
from node.peering.words import Grant
from tests.support.clock import Clock


def test_a_blank_slot_and_one_with_its_journal_may_start(tmp_path: Path) -> None:
    require_log(tmp_path)
    (tmp_path / "raft").mkdir()
    (tmp_path / "raft" / "journal").write_bytes(b"x")
    note_log(tmp_path)
    note_log(tmp_path)
    require_log(tmp_path)


def test_a_lost_journal_is_refused_with_what_to_do(tmp_path: Path) -> None:
    note_log(tmp_path)
    with pytest.raises(CannotStart, match=r"journal of .* is gone: restore it, or move the slot's folder away"):
        require_log(tmp_path)


def test_the_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    record = ClusterRecord("c-1", NodeId("a" * 32), "parvada", "volume")
    (tmp_path / "cluster.json").write_bytes(msgspec.json.encode(record))
    assert read_record(tmp_path) == record


def test_a_half_recovered_slot_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / RECOVERING).write_bytes(b"")
    with pytest.raises(CannotStart, match="run `parvada cluster recover` again"):
        require_log(tmp_path)


ME, OTHER = NodeId("a" * 32), NodeId("b" * 32)
BLANK = Peer(OTHER, ("10.0.0.1",), 7443, 7444, 8080, "blank", "", "f" * 16, "0.1.0")
MEMBER = replace(BLANK, state="member", cluster_id="c-1")


class Sight:
    """What the joiner asks of a greeter: one peer, which answers a further greeting with the next of `answers`; None is
    silence."""

    def __init__(self, clock: Clock, *answers: Peer | None) -> None:
        self.met = {OTHER: BLANK}
        self.newest = clock() - 60.0
        self.greeted: list[float] = []
        self._clock = clock
        self.news = asyncio.Event()
        self.answers = list(answers)

    def me(self) -> Peer:
        return replace(BLANK, id=ME)

    async def greet_at(self, peer: Peer) -> bool:
        self.greeted.append(self._clock())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            self.met[OTHER] = answer
        return answer is not None


class Members:
    """Whoever asks is let in."""

    async def join(self, node: NodeId, me: Peer) -> Grant:
        return Grant("c-1", node, "parvada")


def joiner(folder: Path, sight: Sight, clock: Clock) -> Joiner:
    settings = config.load({"PARVADA_DATA": str(folder), "PARVADA_SHARED": "off", "PARVADA_QUIET_SECONDS": "0"})
    promises = Promises(ME, folder, 0, "parvada", cast(PeerClient, Members()))
    client = cast(PeerClient, Members())
    heard = frozenset({OTHER})
    return Joiner(ME, settings, folder, cast(Greeter, sight), client, lambda: heard, promises, clock=clock)


async def test_where_nothing_arbitrates_the_lowest_forms_once_all_are_still_blank(tmp_path: Path, clock: Clock) -> None:
    record = await clock.run(joiner(tmp_path, Sight(clock, BLANK), clock).settle())
    assert record.formation == "development"


async def test_who_was_blank_a_moment_ago_may_have_formed_since(tmp_path: Path, clock: Clock) -> None:
    record = await clock.run(joiner(tmp_path, Sight(clock, MEMBER), clock).settle())
    assert (record.formation, record.cluster_id) == ("joined", "c-1")


async def test_nobody_forms_beside_a_peer_that_does_not_answer(tmp_path: Path, clock: Clock) -> None:
    sight = Sight(clock, None, None, MEMBER)
    record = await clock.run(joiner(tmp_path, sight, clock).settle())
    assert record.formation == "joined"
    assert len(sight.greeted) == 3


async def test_two_clusters_in_sight_may_be_about_to_be_one(tmp_path: Path, clock: Clock) -> None:
    sight = Sight(clock, MEMBER)
    third = NodeId("c" * 32)
    sight.met |= {OTHER: MEMBER, third: replace(MEMBER, id=third, cluster_id="c-2")}
    begun = clock()
    with pytest.raises(CannotStart, match="two clusters with this secret"):
        await clock.run(joiner(tmp_path, sight, clock).settle())
    assert clock() - begun >= SPLIT_PATIENCE_SECONDS
    settling = asyncio.create_task(joiner(tmp_path, sight, clock).settle())
    await clock.advance(SPLIT_PATIENCE_SECONDS / 2)
    assert not settling.done(), "they may be about to be one"
    del sight.met[third]
    sight.news.set()
    assert (await clock.run(settling)).cluster_id == "c-1"
