"""The verdict has teeth: each rule accepts a sound run and names what is wrong with an unsound one."""

from collections.abc import Sequence

import pytest

from tests.chaos import verdict
from tests.chaos.ledger import Ledger, table
from tests.chaos.record import Applied, Move, Sight, Upload
from tests.chaos.verdict import Final
from tests.support import lincheck
from tests.support.lincheck import Operation

FINAL = Final({"a": ("one", "two", "three")}, ("t1", "t2"), {"j1": "succeeded"})


def sight(called: float, *tags: str, life: int = 7, must_hold: str = "") -> Sight:
    return Sight("node-1", life, "a", called, called + 0.5, tags, must_hold)


def test_a_sound_run_passes() -> None:
    moves = [Move("a", "one", True), Move("a", "two", True), Move("a", "idle", False)]
    assert verdict.lost(moves, ["t1"], ["j1"], FINAL) == []
    assert verdict.repeated(moves, FINAL) == []
    assert verdict.prefixes([sight(0), sight(1, "one"), sight(2, "one", "two", must_hold="two")], FINAL) == []
    assert verdict.indexes([Applied("n", 1, 0, 1, 5), Applied("n", 1, 2, 3, 5), Applied("n", 2, 4, 5, 0)]) == []
    assert verdict.unfinished(["j1"], FINAL) == []


@pytest.mark.parametrize(
    ("moves", "tokens", "jobs", "named"),
    [
        ([Move("a", "four", True)], [], [], "move four of a"),
        ([], ["t3"], [], "token t3"),
        ([], [], ["j2"], "job j2"),
    ],
)
def test_what_was_acknowledged_and_is_gone(
    moves: Sequence[Move], tokens: Sequence[str], jobs: Sequence[str], named: str
) -> None:
    assert verdict.lost(moves, tokens, jobs, FINAL) == [f"lost: {named}"]


def test_an_effect_that_happened_twice_or_without_being_told() -> None:
    twice = Final({"a": ("one", "two", "one")}, ("t1", "t1"), {})
    assert verdict.repeated([], twice) == ["happened 2 times: one", "happened 2 times: t1"]
    assert verdict.repeated([Move("a", "one", False)], FINAL) == ["had an effect, but not by its answer: one"]


@pytest.mark.parametrize(
    ("sights", "said"),
    [
        ([sight(0, "two")], "no prefix"),
        ([sight(0, "one", "three")], "no prefix"),
        ([sight(0, "one", must_hold="two")], "without two"),
        ([sight(0, "one", "two"), sight(1, "one")], "went back"),
    ],
)
def test_local_reads_that_no_sound_node_gives(sights: Sequence[Sight], said: str) -> None:
    (found,) = verdict.prefixes(sights, FINAL)
    assert said in found


def test_reads_at_the_same_time_and_of_another_life_may_differ() -> None:
    assert verdict.prefixes([sight(0, "one", "two"), sight(0.4, "one")], FINAL) == []
    assert verdict.prefixes([sight(0, "one", "two"), sight(1, "one", life=8)], FINAL) == []


def test_an_index_that_goes_back_and_a_job_that_fails() -> None:
    assert len(verdict.indexes([Applied("n", 1, 0, 1, 5), Applied("n", 1, 2, 3, 4)])) == 1
    restarted = [Applied("n", 1, 0, 1, 5), Applied("n", 2, 2, 3, 4)]
    assert (verdict.indexes(restarted), verdict.set_back_by_restarts(restarted)) == ([], 1)
    assert verdict.unfinished(["j1", "j2"], Final({}, (), {"j1": "failed"})) == [
        "job j1 ended as failed",
        "job j2 ended as lost",
    ]


def test_bytes_that_are_gone_or_others() -> None:
    final = Final({}, (), {}, contents={"kept": ("d1", "s1"), "rotten": ("d2", "s9"), "replaced": ("d8", "s3")})
    kept, rotten, replaced = Upload("kept", "d1", "s1"), Upload("rotten", "d2", "s2"), Upload("replaced", "d3", "s3")
    assert verdict.spoilt([kept], final) == []
    assert verdict.spoilt([Upload("gone", "d4", "s4")], final) == ["lost: dataset gone"]
    found = verdict.spoilt([rotten, replaced], final)
    assert [one.split(" holds")[0] for one in found] == ["lost: dataset rotten", "lost: dataset replaced"]


def test_a_move_that_nobody_asked_for() -> None:
    assert verdict.invented({"one", "two", "three", "never answered"}, FINAL) == []
    assert verdict.invented({"one", "three"}, FINAL) == ["nobody asked for the move two"]


def test_a_leaderboard_that_faults_have_changed() -> None:
    peace = [(1, "GaussianNB", 0.97), (2, "LogisticRegression", 0.95)]
    assert verdict.differing(peace, Final({}, (), {}, {"j1": list(peace)})) == []
    (found,) = verdict.differing(peace, Final({}, (), {}, {"j1": list(peace), "j2": peace[::-1]}))
    assert "job j2" in found


def test_too_many_open_operations_are_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lincheck, "MAX_STEPS", 2)
    operations = [Operation("x", "write", 0, 9, value) for value in range(5)]
    (found,) = verdict.linearizability(operations)
    assert found.startswith("undecided")


@pytest.mark.parametrize(
    ("answered", "longest"),
    [
        ([], 0.0),
        ([(0.0, 1.0)], 1.0),
        ([(0.0, 1.0), (5.0, 5.5)], 1.0),
        ([(0.0, 1.0), (0.5, 4.0), (3.0, 4.5)], 3.0),
        ([(0.0, 9.0), (1.0, 2.0), (3.0, 3.5)], 5.5),
    ],
    ids=["no writes", "one", "nobody asked in between", "two wait", "one waits through all"],
)
def test_the_longest_time_in_which_a_write_waited_and_none_was_answered(
    answered: list[tuple[float, float]], longest: float
) -> None:
    assert verdict.longest_wait(answered) == longest


def test_ledgers_add_up_and_one_broken_run_shows() -> None:
    total = Ledger(runs=1, kills=3, longest_unavailability=2.0)
    total += Ledger(runs=1, kills=4, longest_unavailability=1.0, linearizable=False, violations=["not linearizable: x"])
    assert (total.runs, total.kills, total.longest_unavailability, total.linearizable) == (2, 7, 2.0, False)
    shown = table({"total": total})
    assert "NO" in shown
    assert "not linearizable: x" in shown
