"""`RaftLog` as the node uses it: three logs with real sockets, certificates and files."""

import asyncio
import errno
import os
import threading
from functools import partial
from pathlib import Path

import pytest

from consensus.core.base import Timers, now
from consensus.core.compaction import CompactionRule
from consensus.core.disk import Corrupt
from consensus.log.raft import RaftLog
from consensus.messages import BeginEpoch
from consensus.ports import Batch, CommandRejected, CommandTooLarge, Log, MembershipRefused, NoQuorum, Resync
from consensus.state import CommandId
from tests.support.clock import Clock
from tests.unit.consensus.fabric import cluster, eventually, identity, persist, token

SHORT_LOG = CompactionRule(entries=50, trailing_entries=5)
NO_ELECTION = Timers(election_min=3600.0, election_max=7200.0, quorum=3600.0)
"""What happens all the same did not wait for an election timeout."""


async def test_three_form_replicate_and_read_their_own_writes(tmp_path: Path) -> None:
    async with cluster(tmp_path, timers=NO_ELECTION) as nodes:
        for name in "abc":
            committed = await nodes.put(name, f"by-{name}")
            assert f"by-{name}" in nodes.logs[name].state.tokens
            assert nodes.logs[name].status.applied_index >= committed.index
        await nodes.agree()
        log, others = nodes.logs["a"], {nodes.id(name) for name in "bc"}
        # A majority is enough for all of the above: the third connection may still be on its way.
        await eventually("all connections", lambda: log.status.quorum and set(log.status.connected) == others)
        assert set(log.status.voters) == {nodes.id("a"), *others}
        assert {log.status.term for log in nodes.logs.values()} == {1}


async def test_the_cluster_survives_its_leader_and_the_leader_comes_back(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        await nodes.put("a", "before")
        old = await nodes.wait_for_leader()
        await nodes.stop(old)
        await nodes.put(next(iter(nodes.logs)), "after")
        await nodes.start(old)
        await nodes.agree()
        assert {"before", "after"} <= set(nodes.logs[old].state.tokens)


async def test_all_of_them_restart_from_disk(tmp_path: Path) -> None:
    async with cluster(tmp_path, rule=SHORT_LOG) as nodes:
        keys = {f"k{number}" for number in range(180)}
        await asyncio.gather(*(nodes.put("abc"[number % 3], f"k{number}") for number in range(180)))
        for name in "abc":
            await nodes.stop(name)
        for name in "abc":
            await nodes.start(name)
        await nodes.put("b", "later")
        await nodes.agree()
        assert keys | {"later"} == set(nodes.logs["c"].state.tokens)


async def test_a_command_repeated_under_its_id_happens_once(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        epoch = BeginEpoch(1, nodes.id("a"))
        log = nodes.logs["a"]
        with pytest.raises(CommandRejected) as rejected:
            await log.propose(epoch, actor="", command_id=CommandId("no-member"))
        with pytest.raises(CommandRejected) as again:
            await nodes.logs["b"].propose(epoch, actor="", command_id=CommandId("no-member"))
        assert again.value.reason == rejected.value.reason
        both = await asyncio.gather(nodes.put("a", "x", "same-id"), nodes.put("b", "x", "same-id"))
        assert both[0] == both[1]
        await asyncio.gather(*(nodes.put("c", "x", "same-id") for _ in range(3)))
        assert len(nodes.logs["c"].state.tokens) == 1


async def test_a_command_that_is_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with cluster(tmp_path, "a") as nodes:
        with pytest.raises(CommandTooLarge):
            await nodes.put("a", "k" * (1024 * 1024))


async def test_without_a_majority_writes_fail_by_their_deadline_and_reads_go_on(tmp_path: Path, clock: Clock) -> None:
    async with cluster(tmp_path) as nodes:
        await nodes.put("a", "kept")
        await nodes.stop("b")
        await nodes.stop("c")
        log = nodes.logs["a"]
        await eventually("the quorum to be missed", lambda: not log.status.quorum)
        clock.hold()
        proposed = asyncio.create_task(log.propose(token("lost"), actor="", timeout=1.2))
        await clock.advance(1.1)
        assert not proposed.done(), "another leader may come"
        await clock.advance(0.2)
        with pytest.raises(NoQuorum, match=r"not committed within 1.2 s: no majority of the 3 voters"):
            await proposed
        assert log.status.leader is None
        assert log.status.seconds_without_quorum > 0
        assert "kept" in log.state.tokens


async def test_a_learner_proposes_is_promoted_and_removed(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        nodes.identities["d"] = identity()
        await nodes.start("d")
        await nodes.put("d", "by-a-learner")
        assert nodes.id("d") not in nodes.logs["d"].status.voters
        await nodes.promote("d")
        await eventually("d to know", lambda: nodes.id("d") in nodes.logs["d"].status.voters)

        async def remove() -> None:
            leader = nodes.logs[await nodes.wait_for_leader()]
            if nodes.id("d") in leader.status.voters:
                await leader.remove_voter(nodes.id("d"))

        await persist(remove)
        await nodes.put("d", "still-a-learner")
        assert nodes.id("d") not in nodes.logs["d"].status.voters


async def test_a_new_learner_catches_up_by_a_snapshot(tmp_path: Path) -> None:
    async with cluster(tmp_path, rule=SHORT_LOG) as nodes:
        await asyncio.gather(*(nodes.put("a", f"k{number}") for number in range(300)))
        nodes.identities["d"] = identity()
        learner = await nodes.start("d")
        reader = learner.subscribe()
        assert isinstance(await anext(reader), Resync)
        await eventually("the learner", lambda: len(learner.state.tokens) == 300)
        assert (tmp_path / "d" / "snapshot").exists()
        await nodes.put("a", "one-more")
        await nodes.agree()


async def test_leadership_goes_where_it_is_sent(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        for _ in range(3):
            old = await nodes.wait_for_leader()
            heir = next(name for name in "abc" if name != old)
            await persist(partial(nodes.logs[old].transfer_leadership, nodes.id(heir)))
            await eventually("the heir", partial(nodes.leads, heir))
        with pytest.raises(MembershipRefused):
            await nodes.logs[old].transfer_leadership(None)
        with pytest.raises(MembershipRefused):
            await nodes.logs[heir].remove_voter(nodes.id(heir))


async def test_a_question_given_up_does_not_end_the_log(tmp_path: Path) -> None:
    """A slow disk holds the log's thread: whoever asked it has gone by the time it answers."""
    async with cluster(tmp_path, "a") as nodes:
        log = nodes.logs["a"]
        await nodes.put("a", "before")
        free = threading.Event()
        log._thread.call(lambda _: free.wait(30))
        with pytest.raises(NoQuorum, match="busy"):
            await log.transfer_leadership(None, timeout=0.05)
        asking = asyncio.create_task(log.remove_voter(nodes.id("a")))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        free.set()
        await nodes.put("a", "after")
        assert nodes.crashes == []


async def test_a_barrier_sees_what_was_committed_elsewhere(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        for number in range(10):
            await nodes.put("a", f"k{number}")
            index = await nodes.logs["c"].barrier()
            assert f"k{number}" in nodes.logs["c"].state.tokens
            await nodes.logs["b"].wait_applied(index, 5.0)
        with pytest.raises(TimeoutError):
            await nodes.logs["b"].wait_applied(index + 1000, 0.05)


async def test_subscribers_get_every_entry_in_order(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        reader = nodes.logs["b"].subscribe()
        first = await anext(reader)
        assert isinstance(first, Resync)
        await asyncio.gather(*(nodes.put("a", f"k{number}") for number in range(100)))
        seen: list[int] = []
        async for item in reader:
            assert isinstance(item, Batch)
            seen += [index for index, _ in item.entries]
            if len(item.state.tokens) == 100:
                break
        assert seen == sorted(set(seen))
        assert len(seen) == 100
        events = nodes.logs["b"].recent_events(first.state.index)
        assert events is not None
        assert [event.subject for event in events if event.kind == "token.created"]


async def test_beacons_reach_every_connected_peer(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        begun = now()
        for name in "abc":
            nodes.logs[name].set_beacon(name.encode())
        log = nodes.logs["a"]
        for name in "bc":
            log.disconnect(nodes.id(name))  # each connection begins with one
        await eventually("beacons", lambda: {b.payload for b in log.beacons().values()} == {b"b", b"c"})
        assert all(0 <= beacon.age <= now() - begun for beacon in log.beacons().values())
        with pytest.raises(ValueError, match="beacon"):
            log.set_beacon(bytes(64 * 1024 + 1))


async def test_a_node_with_a_full_disk_gives_up_leadership_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cluster(tmp_path) as nodes:
        await nodes.put("a", "before")
        victim = await nodes.wait_for_leader()
        log = nodes.logs[victim]
        name = f"raft-{nodes.id(victim)[:8]}"
        real = os.pwrite

        def full(handle: int, data: bytes, offset: int) -> int:
            if threading.current_thread().name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(handle, data, offset)

        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", full)
            other = next(name for name in "abc" if name != victim)
            await nodes.put(other, "meanwhile")
            await eventually("the alarm", lambda: "No space left" in log.status.read_only)
            assert await nodes.wait_for_leader() != victim
            with pytest.raises(NoQuorum, match="read only"):
                await nodes.put(victim, "refused")
        await eventually("the disk to be used again", lambda: log.status.read_only == "")
        await nodes.put(victim, "after")
        await nodes.agree()


async def test_a_damaged_journal_refuses_to_start(tmp_path: Path) -> None:
    async with cluster(tmp_path, "a") as nodes:
        for number in range(5):
            await nodes.put("a", f"k{number}")
        await nodes.stop("a")
        path = tmp_path / "a" / "journal"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        with pytest.raises(Corrupt):
            await nodes.make("a").start()


async def test_an_error_in_the_log_stops_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """An entry that cannot be applied must not be skipped: here `on_crash` stands for the end of the process."""
    async with cluster(tmp_path, "a") as nodes:

        def broken(*_: object) -> None:
            raise MemoryError("no memory")

        monkeypatch.setattr("consensus.log.replica.apply", broken)
        proposed = asyncio.create_task(nodes.logs["a"].propose(token("x"), actor="", timeout=30))
        await eventually("the crash", lambda: nodes.crashes)
        await clock.advance(30)
        with pytest.raises(NoQuorum):
            await proposed
        assert [type(error) for error in nodes.crashes] == [MemoryError]
        nodes.crashes.clear()


async def test_stopping_answers_those_who_wait(tmp_path: Path) -> None:
    async with cluster(tmp_path) as nodes:
        await nodes.stop("b")
        await nodes.stop("c")
        waiting = asyncio.create_task(nodes.logs["a"].propose(token("x"), actor="", timeout=30))
        reading = asyncio.create_task(nodes.logs["a"].wait_applied(10**9, 30))
        await asyncio.sleep(0)
        await nodes.stop("a")
        for task in (waiting, reading):
            with pytest.raises(NoQuorum, match="stopped"):
                await task


def accepts_log(log: Log) -> None:
    """mypy checks here that `RaftLog` is a `ports.Log`."""


def check_port(log: RaftLog) -> None:
    accepts_log(log)
