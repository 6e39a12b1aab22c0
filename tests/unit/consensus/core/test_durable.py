"""A leader applies, and so lets readers see, only what a loss of power leaves in place. Where others vote, their
answers come after its own sync; whoever needs no other voter has its own word alone."""

from collections.abc import Iterator

import pytest

from consensus.core.configuration import VoterChange
from consensus.core.journal import Journal
from consensus.wire.frames import AppendReply
from tests.simulation.clock import Clock, virtual_time
from tests.simulation.disk import SimDisk
from tests.unit.consensus.core.lone import PUT, Lone, elected


@pytest.fixture
def clock() -> Iterator[Clock]:
    with virtual_time() as clock:
        yield clock


def after_power_loss(lone: Lone) -> int:
    """The last entry of the log that would be found now."""
    disk = SimDisk()
    disk.files = {name: bytearray(content) for name, content in lone.disk.durable.items()}
    return Journal(disk)[-1][1]


def watched(lone: Lone, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The entries as they are applied, each found durable at that moment."""
    applied: list[int] = []
    apply = type(lone.core)._SyncObj__doApplyCommand

    def checked(command: bytes) -> None:
        index = lone.core.applied_index + 1
        assert after_power_loss(lone) >= index, f"entry {index} is applied, and not durable"
        applied.append(index)
        apply(lone.core, command)

    monkeypatch.setattr(lone.core, "_SyncObj__doApplyCommand", checked)
    return applied


def test_a_sole_voter_applies_nothing_before_it_is_durable(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    lone = Lone(clock, genesis="A")
    applied = watched(lone, monkeypatch)
    lone.turn()
    for number in range(3):
        lone.core.submit(PUT + f"k{number}".encode())
        lone.turn()
    assert applied == list(range(2, 2 + 1 + 3)), "the no-op of its term and the commands, each in the turn it came in"


def test_nor_does_who_has_just_become_one(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The removal of the last other vote is in force at once, and needs nobody else to be committed."""
    lone = elected(clock)
    for seconds in (0.0, 0.1):
        lone.turn(seconds)
        lone.hears("B", AppendReply(2, True, lone.core.last_index))
    applied = watched(lone, monkeypatch)
    lone.core.electorate.propose(VoterChange(add=False, node="C"))
    lone.turn()
    lone.hears("B", AppendReply(2, True, lone.core.last_index))
    lone.core.electorate.propose(VoterChange(add=False, node="B"))
    lone.turn()
    assert lone.core.electorate.applied == ("A",)
    assert applied == [6, 7]


def test_the_journal_knows_what_is_durable() -> None:
    journal = Journal(SimDisk())
    for index in (1, 2, 3):
        journal.add(b"c", index, 1)
    journal.sync()
    assert journal.durable_index == 3
    journal.add(b"c", 4, 1)
    journal.add(b"c", 5, 1)
    assert journal.durable_index == 3
    journal.cut_from(5)
    assert journal.durable_index == 3
    journal.cut_from(3)
    assert journal.durable_index == 2
    journal.add(b"d", 3, 2)
    assert journal.durable_index == 2
    journal.sync()
    assert journal.durable_index == 3
    journal.add(b"d", 4, 2)
    journal.rebase(9, 2)
    assert journal.durable_index == 9
