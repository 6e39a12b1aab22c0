"""Each hole of the library, as a test that fails when the hole is open (numbers: DESIGN.md, "Holes")."""

import errno
from collections.abc import Iterator, Sequence
from unittest import mock

import pysyncobj.pickle
import pytest
from pysyncobj import syncobj

from consensus.core import base, sending
from consensus.core.base import NO_OP, LibraryMismatch, Node, Timers, check_library
from consensus.core.configuration import VoterChange
from consensus.core.election import LOST_LEADER_DELAY
from consensus.core.matching import Diverged
from consensus.core.sending import LEARNER_PAUSE
from consensus.log.glance import glance_at, status_of
from consensus.ports import LogStatus, MembershipRefused
from consensus.state import ClusterState, NodeId
from consensus.wire.frames import (
    AppendEntries,
    AppendReply,
    HigherTerm,
    Message,
    PreVote,
    PreVoteGranted,
    Propose,
    RequestVote,
    TimeoutNow,
    VoteGranted,
)
from tests.simulation.clock import Clock, virtual_time
from tests.simulation.healing import heal_and_check
from tests.simulation.world import World
from tests.unit.consensus.core.lone import PUT, Lone, change, elected, joined


@pytest.fixture
def clock() -> Iterator[Clock]:
    with virtual_time() as clock:
        yield clock


def _add(node: str) -> VoterChange:
    return VoterChange(add=True, node=node)


def puts(first: int, last: int, term: int = 1) -> tuple[tuple[int, bytes], ...]:
    return tuple((term, PUT + f"k{index}".encode()) for index in range(first, last + 1))


# ---------------------------------------------------------------- 1: log matching
def test_an_older_message_never_truncates_what_was_acknowledged(clock: Clock) -> None:
    lone = joined(clock)
    assert lone.hears("B", AppendEntries(1, 4, 4, 1, puts(5, 9))) == [AppendReply(1, True, 9)]
    # Sent before the one above, or again after a reset: the same entries, and fewer of them.
    assert lone.hears("B", AppendEntries(1, 4, 4, 1, puts(5, 6))) == [AppendReply(1, True, 6)]
    assert lone.journal[-1][1] == 9


def test_only_what_was_compared_is_acknowledged(clock: Clock) -> None:
    lone = joined(clock)
    lone.hears("B", AppendEntries(1, 4, 4, 1, puts(5, 9)))
    # A new leader that has only entry 5: 6 to 9 may conflict with what it appends later.
    assert lone.hears("C", AppendEntries(2, 9, 5, 1, ())) == [AppendReply(2, True, 5)]
    assert lone.core.commit_index == 5


def test_a_conflict_is_cut_and_replaced(clock: Clock) -> None:
    lone = joined(clock)
    lone.hears("B", AppendEntries(1, 4, 4, 1, puts(5, 9)))
    assert lone.hears("C", AppendEntries(2, 4, 5, 1, puts(6, 7, term=2))) == [AppendReply(2, True, 7)]
    assert lone.log()[-3:] == [(1, PUT + b"k5"), (2, PUT + b"k6"), (2, PUT + b"k7")]


def test_a_conflict_with_a_committed_entry_stops_the_node(clock: Clock) -> None:
    lone = joined(clock)
    lone.hears("B", AppendEntries(1, 6, 4, 1, puts(5, 6)))
    with pytest.raises(Diverged):
        lone.core.receive("C", AppendEntries(2, 6, 4, 1, puts(5, 6, term=2)))


def test_a_long_conflict_is_resolved_in_one_round_trip(clock: Clock) -> None:
    lone = joined(clock)
    lone.hears("B", AppendEntries(1, 4, 4, 1, puts(5, 600)))
    assert lone.hears("C", AppendEntries(2, 4, 600, 2, ())) == [AppendReply(2, False, 5, 600)]


# ---------------------------------------------------------------- 2: changes of voters
def test_whom_a_new_leader_has_not_heard_counts_as_silent(clock: Clock) -> None:
    """It may have died while its connection stays; found by the simulator, where a vote was taken from a living one."""
    lone = elected(clock)

    def silent() -> frozenset[NodeId]:
        return status_of(glance_at(lone.core, ClusterState()), clock(), 0.0).silent

    assert silent() == {"B", "C"}
    lone.hears("B", AppendReply(2, True, 5))
    assert silent() == {"C"}
    lone.core.disconnected_from("B")
    assert silent() == {"B", "C"}


def test_a_lost_leader_or_leadership_has_been_missed_since_then_and_not_for_ever(clock: Clock) -> None:
    def status(lone: Lone) -> LogStatus:
        return status_of(glance_at(lone.core, ClusterState()), clock(), 0.0)

    clock.now += 60.0
    follower = joined(clock)
    follower.hears("B", AppendEntries(1, 4, 4, 1, ()))
    follower.turn()
    assert status(follower).quorum
    follower.core.disconnected_from("B")
    assert not status(follower).quorum
    assert status(follower).seconds_without_quorum == pytest.approx(0.0, abs=0.1)
    leader = elected(clock)
    leader.hears("B", AppendReply(2, True, 5))
    leader.turn()
    clock.now += 0.4
    leader.hears("B", HigherTerm(7))
    assert not status(leader).quorum
    assert status(leader).seconds_without_quorum == pytest.approx(0.4, abs=0.1)


def test_after_a_broken_connection_to_the_leader_nobody_waits_for_the_whole_timeout(clock: Clock) -> None:
    def stands_after(*, broken: bool) -> float:
        follower = joined(clock)
        follower.hears("B", AppendEntries(1, 4, 4, 1, ()))
        begun = clock.now
        if broken:
            follower.core.disconnected_from("B")
        while not any(isinstance(message, PreVote) for _, message in follower.turn(0.01)):
            assert clock.now - begun < 10.0
        return clock.now - begun

    least, most = Timers().election_min, Timers().election_max
    assert least < stands_after(broken=False) <= most + 0.02
    assert stands_after(broken=True) <= LOST_LEADER_DELAY * most + 0.02 < least


def test_a_second_change_of_voters_waits_for_the_first(clock: Clock) -> None:
    lone = elected(clock)
    with pytest.raises(MembershipRefused, match="committed an entry of its term"):
        lone.core.electorate.propose(_add("D"))
    lone.hears("B", AppendReply(2, True, 5))
    lone.turn()
    lone.core.electorate.propose(_add("D"))
    with pytest.raises(MembershipRefused, match="under way"):
        lone.core.electorate.propose(_add("E"))


def test_a_change_from_the_network_is_refused(clock: Clock) -> None:
    lone = elected(clock)
    lone.hears("C", Propose(change("D")))
    assert lone.core.last_index == 5


def test_a_cut_change_of_voters_is_undone(clock: Clock) -> None:
    lone = joined(clock)
    lone.hears("B", AppendEntries(1, 4, 4, 1, ((1, change("C", add=False)),)))
    assert "C" not in lone.core.electorate.voters
    lone.hears("C", AppendEntries(2, 4, 4, 1, ((2, NO_OP),)))
    assert "C" in lone.core.electorate.voters


def test_answers_and_votes_of_learners_do_not_count(clock: Clock) -> None:
    lone = elected(clock)
    for learner in "DEF":
        lone.core.connected_to(learner)
        lone.turn()
        lone.hears(learner, AppendReply(2, True, 5))
    assert lone.core.commit_index == 4
    lone.hears("C", AppendReply(2, True, 5))
    lone.turn()
    assert lone.core.commit_index == 5


def test_a_learner_votes_but_never_stands(clock: Clock) -> None:
    lone = Lone(clock, me="L", genesis="B")
    lone.core.connected_to("B")
    assert not any(isinstance(message, PreVote | RequestVote) for _ in range(50) for _, message in lone.turn(0.1))
    assert PreVoteGranted(7) in lone.hears("B", PreVote(7, 3, 1, 0))
    assert VoteGranted(3) in lone.hears("B", RequestVote(3, 1, 0))


# ---------------------------------------------------------------- learners cost little
def _leading_with_learner(clock: Clock) -> Lone:
    """A leads; B has everything, entry 5 is committed, and the learner D has confirmed it in its first round."""
    lone = elected(clock)
    lone.hears("B", AppendReply(2, True, 5))
    lone.core.connected_to("D")
    lone.turn(0.01)
    lone.hears("D", AppendReply(2, True, 5))
    lone.turn(0.01)
    return lone


def _entries_to(sent: Sequence[tuple[str, Message]], peer: str) -> int:
    return sum(len(message.entries) for to, message in sent if to == peer and isinstance(message, AppendEntries))


def test_a_learner_gets_what_is_committed_and_nothing_else(clock: Clock) -> None:
    lone = _leading_with_learner(clock)
    lone.core.submit(PUT + b"k6")
    sent = lone.turn(0.01)
    assert (_entries_to(sent, "B"), _entries_to(sent, "D")) == (1, 0)
    lone.core.receive("B", AppendReply(2, True, 6))
    sent = lone.turn(0.01)
    assert _entries_to(sent, "D") == 1
    assert [message.commit_index for to, message in sent if to == "D" and isinstance(message, AppendEntries)] == [6]


@mock.patch.object(sending, "BATCH_BYTES", 1024 * 1024)
def test_learners_are_served_in_rounds_however_many_writes_there_are(clock: Clock) -> None:
    """A round is one message here: a batch takes all of it."""
    lone = _leading_with_learner(clock)
    messages, entries, turns = 0, 0, 1000
    for index in range(6, 6 + turns):
        lone.core.submit(PUT + b"k")
        sent = lone.turn(0.0001)
        lone.core.receive("B", AppendReply(2, True, index))
        sent += lone.turn(0.0001)
        messages += sum(to == "D" for to, _ in sent)
        if got := _entries_to(sent, "D"):
            entries += got
            lone.core.receive("D", AppendReply(2, True, 5 + entries))
    assert messages <= 0.0002 * turns / LEARNER_PAUSE + 2
    assert entries > 0.9 * turns


def test_what_is_on_its_way_to_a_learner_is_no_lag(clock: Clock) -> None:
    lone, confirmed = _leading_with_learner(clock), 5
    for index in range(6, 1006):  # 5,000 writes a second
        lone.core.submit(PUT + b"k")
        lone.turn(0.0001)
        lone.core.receive("B", AppendReply(2, True, index))
        lone.turn(0.0001)
        if index % 250 == 0:  # 50 ms behind
            lone.core.receive("D", AppendReply(2, True, confirmed))
            confirmed = index
    assert lone.core.last_index - lone.core.match_index[Node("D")] > 250
    assert lone.core.lag == {"B": 0, "C": lone.core.lag["C"], "D": 0}
    assert lone.core.lag["C"] > 400, "a peer that confirms nothing"


def test_a_round_that_is_owed_to_learners_is_a_deadline(clock: Clock) -> None:
    lone = _leading_with_learner(clock)
    heartbeat = lone.core.heartbeat_deadline
    lone.core.submit(PUT + b"k6")
    lone.turn()
    lone.core.receive("B", AppendReply(2, True, 6))
    lone.turn()
    clock.now = lone.core.next_deadline
    assert clock.now < heartbeat
    assert _entries_to(lone.turn(), "D") == 1


# ---------------------------------------------------------------- 3 and 10: durable before visible
def test_nothing_leaves_before_it_is_durable(clock: Clock) -> None:
    lone = joined(clock)
    lone.core.receive("B", AppendEntries(1, 4, 4, 1, puts(5, 5)))
    assert lone.outbox
    synced = lone.journal.syncs
    answered = lone.turn()
    assert lone.journal.syncs == synced + 1
    assert answered == [("B", AppendReply(1, True, 5))]


def test_a_full_disk_never_acknowledges_and_recovers(clock: Clock) -> None:
    lone = joined(clock)
    lone.disk.full = OSError(errno.ENOSPC, "No space left on device")
    assert lone.hears("B", AppendEntries(1, 4, 4, 1, puts(5, 5))) == []
    assert "No space left" in lone.core.read_only
    assert lone.hears("B", AppendEntries(1, 4, 4, 1, puts(5, 9))) == []
    assert lone.hears("C", RequestVote(9, 99, 9)) == []
    assert lone.core.leader is not None, "proposals still find the leader"
    lone.disk.full = None
    lone.turn(1.0)
    assert lone.core.read_only == ""
    assert lone.hears("B", AppendEntries(1, 4, 4, 1, puts(5, 9))) == [AppendReply(1, True, 9)]


def test_a_leader_whose_disk_is_full_hands_over(clock: Clock) -> None:
    lone = elected(clock)
    lone.hears("C", AppendReply(2, True, 5))
    lone.disk.full = OSError(errno.ENOSPC, "No space left on device")
    lone.core.submit(b"k")
    sent = lone.turn()
    assert sent == [("C", TimeoutNow(2))], "the entry itself was not sent: it is not durable"
    assert not lone.core.is_leader


# ---------------------------------------------------------------- 9: answers of other terms
def test_a_late_answer_is_not_credited_to_a_later_leadership(clock: Clock) -> None:
    lone = elected(clock)
    lone.hears("B", AppendReply(1, True, 5))
    lone.hears("B", AppendReply(3, True, 5))
    lone.turn()
    assert lone.core.commit_index == 4


def test_a_vote_is_counted_once(clock: Clock) -> None:
    lone = joined(clock)
    lone.hears("B", AppendEntries(1, 4, 4, 1, ((1, change("D")), (1, change("E")))))
    for node in "DE":
        lone.core.connected_to(node)
    lone.hears("B", AppendEntries(1, 6, 6, 1, ()))
    question = None
    while question is None:
        question = next((message for _, message in lone.turn(0.1) if isinstance(message, PreVote)), None)
    for node in "BC":
        lone.hears(node, PreVoteGranted(question.round))
    for _ in range(5):
        lone.hears("B", VoteGranted(lone.core.term))
        lone.hears("B", VoteGranted(lone.core.term - 1))  # late, from an election before
    assert not lone.core.is_leader
    lone.hears("D", VoteGranted(lone.core.term))
    assert lone.core.is_leader


# ---------------------------------------------------------------- elections
def test_a_node_that_was_cut_off_does_not_depose_the_leader(clock: Clock) -> None:
    world = World(1, clock)
    leader = world.leader()
    assert leader is not None
    victim = next(name for name in world.servers if name != leader.me)
    term = leader.core.term
    world.cut_off(victim)
    end = clock.now + 20
    world.run_until(lambda: clock.now > end)
    world.heal()
    end = clock.now + 5
    world.run_until(lambda: clock.now > end)
    assert (leader.core.is_leader, leader.core.term) == (True, term)


def test_a_leader_without_a_majority_steps_down_within_a_second(clock: Clock) -> None:
    world = World(2, clock)
    leader = world.leader()
    assert leader is not None
    world.cut_off(leader.me)
    cut_at = clock.now
    world.run_until(lambda: not leader.core.is_leader)
    assert clock.now - cut_at < 1.2
    world.run_until(lambda: any(s.core.is_leader for s in world.servers.values()))


def test_a_follower_of_a_higher_term_brings_the_leader_to_it(clock: Clock) -> None:
    """Else it would refuse the leader's entries for ever, while pre-vote keeps it from winning an election."""
    lone = elected(clock)
    lone.hears("C", HigherTerm(7))
    assert (lone.core.is_leader, lone.core.term) == (False, 7)
    assert joined(clock).hears("C", AppendEntries(0, 4, 4, 1, ())) == [HigherTerm(1)]


def test_a_leader_hands_over_only_to_a_voter_with_the_whole_log(clock: Clock) -> None:
    lone = elected(clock)
    lone.core.connected_to("D")
    with pytest.raises(MembershipRefused):
        lone.core.handover.begin("D", 1.0)
    lone.core.handover.begin("C", 0.3)
    lone.core.submit(b"held back")
    assert not any(isinstance(message, TimeoutNow) for _, message in lone.turn())
    assert lone.core.last_index == 5, "the log does not grow meanwhile"
    lone.hears("C", AppendReply(2, True, 5))
    assert ("C", TimeoutNow(2)) in lone.sent + lone.turn()
    lone.turn(0.4)
    lone.turn()
    assert lone.core.last_index == 6, "nobody took over: the leader goes on"


@pytest.mark.parametrize("seed", range(5))
def test_a_handover_takes_less_than_an_election_and_loses_nothing(clock: Clock, seed: int) -> None:
    world = World(seed, clock)
    leader = world.leader()
    assert leader is not None
    heir = next(name for name in world.servers if name != leader.me)
    keys = [world.put(name) for name in world.servers for _ in range(20)]
    leader.core.handover.begin(heir, 1.0)
    begun = clock.now
    world.run_until(lambda: world.servers[heir].core.is_leader)
    assert clock.now - begun < 0.3
    world.run_until(lambda: set(keys) <= world.clients.acknowledged)
    heal_and_check(world)


def test_timeout_now_of_a_stranger_does_nothing(clock: Clock) -> None:
    lone = joined(clock)
    lone.hears("C", TimeoutNow(1))
    assert lone.core.term == 1
    lone.hears("B", TimeoutNow(1))
    assert lone.core.term == 2


# ---------------------------------------------------------------- the library
def test_the_installed_engine_is_the_one_that_was_studied() -> None:
    check_library()


def test_another_engine_refuses_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "SYNCOBJ_SHA256", "0" * 64)
    with pytest.raises(LibraryMismatch, match=r"Install pysyncobj==0\.3\.17"):
        Lone(Clock())


@pytest.mark.parametrize("name", ["load", "loads", "dump", "dumps"])
def test_pickle_is_locked_out(name: str) -> None:
    with pytest.raises(RuntimeError, match="locked out"):
        getattr(pysyncobj.pickle, name)(b"cos\nsystem\n(S'true'\ntR.")
    assert syncobj.pickle is pysyncobj.pickle
