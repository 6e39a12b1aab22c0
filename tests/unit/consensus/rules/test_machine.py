"""The machine itself: total, exactly-once, bounded in what it remembers."""

from typing import get_args

import pytest
from msgspec.structs import replace

from consensus.messages import (
    Accepted,
    Barrier,
    Command,
    CreateToken,
    Entry,
    HoldBlobs,
    JoinMember,
    RecordFolds,
    Rejected,
    RevokeToken,
    StartFolds,
)
from consensus.queries import outcome_of, remembers
from consensus.rules import machine
from consensus.rules.checks import Change, Stamp
from consensus.rules.machine import AUDIT_ENTRIES, RECENT_COMMANDS, apply
from consensus.state import ClusterState, CommandId, Json, Role
from tests.unit.consensus.facts import BEGUN, FIRST, JOB, RUNNING, A, Cluster, add, digest, facts, failed, member


def test_every_command_has_a_rule() -> None:
    assert machine.commands() == frozenset(get_args(Command))


def test_a_repeated_command_gives_the_first_outcome_and_has_no_effect() -> None:
    cluster = Cluster(*BEGUN)
    first = cluster.run(add(), "upload-1")
    cluster.accept(add(number=2))
    before = cluster.state
    again = cluster.run(add(), "upload-1")
    assert again.outcome == first.outcome == Accepted(Json(b'{"version":1,"created":true}'))
    assert again.events == ()
    assert again.state == replace(before, index=before.index + 1)
    assert cluster.state.recent[CommandId("upload-1")].index == 4


def test_a_repeated_refusal_is_the_same_refusal_though_it_would_be_accepted_now() -> None:
    cluster = Cluster()
    first = cluster.run(RevokeToken("t"), "revoke-1")
    cluster.accept(CreateToken("t", "ci", Role.VIEWER, digest(1)))
    assert cluster.run(RevokeToken("t"), "revoke-1").outcome == first.outcome
    assert isinstance(first.outcome, Rejected)
    assert outcome_of(cluster.state.recent[CommandId("revoke-1")]) == first.outcome
    assert "t" in cluster.state.tokens


def test_another_command_under_a_known_id_is_not_applied() -> None:
    cluster = Cluster(*BEGUN)
    cluster.run(add(), "one")
    cluster.run(add("wine"), "one")
    assert "wine" not in cluster.state.datasets


def test_an_index_is_applied_once() -> None:
    cluster = Cluster(*BEGUN)
    late = apply(cluster.state, 2, Entry(CommandId("new"), 1.0, "ann", add()))
    assert late.state is cluster.state
    assert isinstance(late.outcome, Rejected)


def test_a_gap_in_the_indexes_is_nothing_special() -> None:
    """The log has entries of its own (no-ops, membership) that never reach the machine."""
    cluster = Cluster(*BEGUN)
    assert apply(cluster.state, 99, Entry(CommandId("new"), 1.0, "ann", add())).state.index == 99


def test_a_rule_that_breaks_is_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(state: ClusterState, command: Barrier, stamp: Stamp) -> Change:
        raise ZeroDivisionError(f"at {id(state)}")

    monkeypatch.setattr(machine, "_RULES", {Barrier: broken})
    cluster = Cluster()
    refused = cluster.reject(Barrier())
    assert refused == Rejected("invalid", "the command could not be applied: ZeroDivisionError")


def test_a_lack_of_memory_is_not_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be one on this node and none on the others: the replicas would differ for good."""

    def greedy(state: ClusterState, command: Barrier, stamp: Stamp) -> Change:
        raise MemoryError

    monkeypatch.setattr(machine, "_RULES", {Barrier: greedy})
    with pytest.raises(MemoryError):
        Cluster().run(Barrier())


@pytest.mark.parametrize(
    "changes",
    [{"id": CommandId("")}, {"id": CommandId("i" * 129)}, {"actor": "a" * 201}, {"time": float("nan")}],
)
def test_what_is_no_entry(changes: dict[str, object]) -> None:
    entry = replace(Entry(CommandId("c"), 1.0, "ann", JoinMember(member(A))), **changes)
    applied = apply(ClusterState(), 1, entry)
    assert isinstance(applied.outcome, Rejected)
    assert applied.outcome.code == "invalid"
    assert facts(applied.state) == ClusterState()
    assert outcome_of(applied.state.recent[entry.id]) == applied.outcome, "whoever proposed it is told"
    assert all(audited.at < 2 and len(audited.actor) <= 200 for audited in applied.state.audit.values())


def test_the_audit_tells_who_did_what_to_what_and_how_it_went() -> None:
    cluster = Cluster(*BEGUN)
    cluster.accept(add(), actor="bob")
    cluster.reject(RevokeToken("t9"))
    lines = [cluster.state.audit[place] for place in sorted(cluster.state.audit)]
    assert [(line.index, line.actor, line.command, line.object, line.outcome) for line in lines[-2:]] == [
        (4, "bob", "AddDatasetVersion", "iris", "ok"),
        (5, "ann", "RevokeToken", "t9", "not_found"),
    ]


def test_the_bookkeeping_of_nodes_does_not_flush_the_audit() -> None:
    cluster = Cluster(*RUNNING)
    before = cluster.state.audit
    for command in (Barrier(), HoldBlobs(A, ()), StartFolds(1, JOB, ()), failed(FIRST), RecordFolds(1, JOB)):
        cluster.accept(command)
    assert cluster.state.audit is before


def test_the_audit_is_bounded_and_forgets_the_oldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "AUDIT_ENTRIES", 3)
    cluster = Cluster()
    for number in range(12):
        cluster.run(RevokeToken(f"t{number}"), f"c{number}")
    assert [line.object for _, line in sorted(cluster.state.audit.items())] == ["t9", "t10", "t11"]


def test_as_many_commands_as_promised_are_remembered_and_at_most_twice_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RECENT_COMMANDS", 5)
    cluster = Cluster()
    for number in range(23):
        cluster.run(RevokeToken(f"t{number}"), f"c{number}")
        known = [old for old in range(number + 1) if remembers(cluster.state, CommandId(f"c{old}"))]
        assert known == list(range(number + 1))[-len(known) :], "the newest"
        assert min(number + 1, 5) <= len(known) <= 10


def test_a_command_of_the_generation_before_is_not_applied_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "RECENT_COMMANDS", 5)
    cluster = Cluster()
    first = cluster.run(CreateToken("t", "ci", Role.VIEWER, digest(1)), "make")
    for number in range(6):
        cluster.run(RevokeToken("t"), f"c{number}")
    assert CommandId("make") in cluster.state.recent_before
    assert cluster.run(CreateToken("t", "ci", Role.VIEWER, digest(1)), "make").outcome == first.outcome
    assert "t" not in cluster.state.tokens


def test_the_bounds_are_those_promised() -> None:
    assert (AUDIT_ENTRIES, RECENT_COMMANDS) == (1000, 20_000)
