"""Whole clusters under random faults in virtual time. A failing seed replays: `World(seed, clock)`.

The second half is the proof that the simulator can fail: with a safety rule taken out, it does.
"""

import logging
from collections.abc import Callable, Iterator

import pytest

from consensus.compaction import CompactionRule
from consensus.engine import EngineBase
from consensus.matching import Diverged, Matcher
from consensus.snapshot import Snapshot
from consensus.wire import AppendEntries
from tests.unit.consensus.simdisk import SimDisk
from tests.unit.consensus.simulation import Violation, World, virtual_time

SHORT_LOG = CompactionRule(entries=40, trailing_entries=3)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def simulate(seed: int, steps: int = 800, *, rule: CompactionRule | None = SHORT_LOG, members: bool = True) -> World:
    with virtual_time() as clock:
        world = World(seed, clock, rule=rule)
        for _ in range(steps):
            world.random_step(members=members)
        world.heal_and_check()
        return world


@pytest.mark.parametrize("block", range(10))
def test_nothing_acknowledged_is_lost(block: int) -> None:
    """Power loss, crashes in the middle of a turn, partitions, resets, pauses, hand-overs, changes of voters,
    compaction and snapshots, all at once."""
    worlds = [simulate(seed) for seed in range(block * 8, block * 8 + 8)]
    assert sum(len(world.acknowledged) for world in worlds) > 200


def test_large_commands_without_compaction() -> None:
    for seed in range(5):
        with virtual_time() as clock:
            world = World(seed, clock, big=True)
            for _ in range(600):
                world.random_step()
            world.heal_and_check()


def test_the_same_seed_is_the_same_run() -> None:
    first, second = simulate(7), simulate(7)
    assert first.chosen == second.chosen
    assert first.clock.now == second.clock.now


def _believe_the_commit_index(monkeypatch: pytest.MonkeyPatch) -> None:
    append = Matcher.append

    def careless(self: Matcher, node: object, message: AppendEntries) -> None:
        append(self, node, message)
        core: EngineBase = self._core
        core.set_commit(max(core.commit_index, min(message.commit_index, core.last_index)))

    monkeypatch.setattr(Matcher, "append", careless)


def _drop_the_tail_at_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    adopt = Matcher._adopt

    def careless(self: Matcher, snapshot: Snapshot) -> None:
        self._core.log.rebase(snapshot.index, snapshot.term)
        adopt(self, snapshot)

    monkeypatch.setattr(Matcher, "_adopt", careless)


def _never_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SimDisk, "sync", lambda self, name: None)


def _truncate_without_conflict(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(self: Matcher, previous: int, entries: tuple[tuple[int, bytes], ...]) -> bool:
        if previous < self._core.last_index:
            self._core.log.cut_from(previous + 1)
        for index, (term, command) in enumerate(entries, previous + 1):
            self._core.log.add(command, index, term)
        return True

    monkeypatch.setattr(Matcher, "_append", careless)


@pytest.mark.parametrize(
    "break_a_rule", [_believe_the_commit_index, _drop_the_tail_at_a_snapshot, _never_sync, _truncate_without_conflict]
)
def test_the_simulator_notices_a_missing_rule(
    break_a_rule: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    break_a_rule(monkeypatch)

    def search() -> None:
        for seed in range(60):
            simulate(seed, steps=1200)

    with pytest.raises((Violation, Diverged, IndexError)):
        search()
