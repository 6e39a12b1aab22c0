"""Slots and the genesis file between real processes: one owner each, freed by any death."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from node.joining import slot
from node.joining.slot import GenesisRecord, SlotError

CLAIMER = """
import sys
from pathlib import Path
from node.joining import slot
claimed = slot.claim(Path(sys.argv[1]), None, wait=0, replica=lambda: None)
print(claimed.number, flush=True)
sys.stdin.read()
"""

RACER = """
import os, sys
from pathlib import Path
from node.joining.slot import GenesisRecord, claim_genesis
for line in sys.stdin:
    folder, signal = line.split()
    print("set", flush=True)
    while not os.path.exists(signal):
        pass
    record = claim_genesis(Path(folder), GenesisRecord("c-" + sys.argv[1], sys.argv[1], "parvada"))
    print(record.node_id, flush=True)
"""


@contextmanager
def process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    started = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate(timeout=30)


def line(of: subprocess.Popen[str]) -> str:
    assert of.stdout is not None
    return of.stdout.readline().strip()


def tell(to: subprocess.Popen[str], text: str) -> None:
    assert to.stdin is not None
    to.stdin.write(text + "\n")
    to.stdin.flush()


def none() -> None:
    return None


def test_two_processes_get_two_slots_and_a_killed_one_frees_its_own(tmp_path: Path) -> None:
    with process(CLAIMER, str(tmp_path)) as one, process(CLAIMER, str(tmp_path)) as two:
        numbers = {line(one): one, line(two): two}
        assert set(numbers) == {"1", "2"}
        with pytest.raises(SlotError, match=f"in use .by process {numbers['1'].pid}"):
            slot.claim(tmp_path, 1, wait=0)
        numbers["1"].kill()
        numbers["1"].wait(30)
        again = slot.claim(tmp_path, None, wait=30, replica=none)
        assert (again.number, again.path) == (1, tmp_path / "slots" / "1")
        again.release()


def test_slot_waits_for_a_holder_that_is_on_its_way_out(tmp_path: Path) -> None:
    with process(CLAIMER, str(tmp_path)) as holder:
        assert line(holder) == "1"
        # Its end is asked for before the claim, and comes during it.
        assert holder.stdin is not None
        holder.stdin.close()
        holder.stdin = None
        claimed = slot.claim(tmp_path, None, wait=30, replica=lambda: 1)
        assert claimed.number == 1
        claimed.release()


def test_replica_number_is_the_slot_and_a_taken_one_falls_back(tmp_path: Path) -> None:
    third = slot.claim(tmp_path, None, wait=0, replica=lambda: 3)
    assert third.number == 3
    other = slot.claim(tmp_path, None, wait=0, replica=lambda: 3)
    assert other.number == 1
    third.release()
    third.release()
    assert slot.claim(tmp_path, 3, wait=0).number == 3
    other.release()


def test_slot_asked_for_is_never_replaced_by_another(tmp_path: Path) -> None:
    held = slot.claim(tmp_path, 2, wait=0)
    slept: list[float] = []
    with pytest.raises(SlotError, match=r"slot 2 .* in use"):
        slot.claim(tmp_path, 2, clock=lambda: sum(slept), sleep=slept.append)
    assert sum(slept) == pytest.approx(slot.WAIT_SECONDS, abs=slot.POLL_SECONDS)
    held.release()
    with pytest.raises(SlotError, match="1 to 9999"):
        slot.claim(tmp_path, 0)


def test_child_processes_do_not_keep_the_slot(tmp_path: Path) -> None:
    held = slot.claim(tmp_path, 1, wait=0)
    with process("import sys; sys.stdin.read()"):
        held.release()
        slot.claim(tmp_path, 1, wait=0).release()


def test_one_wins_genesis_and_the_other_reads_it(tmp_path: Path) -> None:
    """Twenty races of two processes that start at the same instant."""
    winners: list[str] = []
    with process(RACER, "a") as one, process(RACER, "b") as two:
        for number in range(20):
            folder = tmp_path / str(number)
            folder.mkdir()
            signal = tmp_path / f"go-{number}"
            for racer in (one, two):
                tell(racer, f"{folder} {signal}")
            assert {line(one), line(two)} == {"set"}
            signal.touch()
            answers = {line(one), line(two)}
            assert len(answers) == 1, "both must name the same winner"
            winners += answers
            record = slot.read_genesis(folder)
            assert record == GenesisRecord(f"c-{winners[-1]}", winners[-1], "parvada")
            assert [entry.name for entry in folder.iterdir()] == ["genesis"]
    assert len(winners) == 20


def test_genesis_survives_a_crash_before_and_after(tmp_path: Path) -> None:
    mine = GenesisRecord("c1", "n1", "parvada")
    # A crash before the link leaves a part of the temporary file: the next try overwrites it.
    (tmp_path / ".genesis.n1.tmp").write_bytes(b'{"clus')
    assert slot.read_genesis(tmp_path) is None
    assert slot.claim_genesis(tmp_path, mine) == mine
    assert slot.claim_genesis(tmp_path, GenesisRecord("c2", "n2", "parvada")) == mine
    assert slot.claim_genesis(tmp_path, GenesisRecord("c3", "n1", "parvada")) == mine


@pytest.mark.parametrize("content", [b"", b"{}", b'{"cluster_id": 1, "node_id": "a", "name": "b"}', b"\xff\xfe"])
def test_damaged_genesis_is_never_replaced(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "genesis").write_bytes(content)
    with pytest.raises(SlotError, match="damaged"):
        slot.claim_genesis(tmp_path, GenesisRecord("c", "n", "parvada"))
    assert (tmp_path / "genesis").read_bytes() == content


def test_run_dir_is_private_and_short_enough_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    monkeypatch.chdir(tmp_path)  # so that the near one is short wherever tests keep their files
    near = slot.claim(Path("near"), 1, wait=0)
    far = slot.claim(tmp_path / ("x" * 90), 1, wait=0)
    assert slot.run_dir(near) == near.path / "run"
    outside = slot.run_dir(far)
    assert outside.parent == tmp_path / "t"
    assert outside == slot.run_dir(far)
    for folder in (slot.run_dir(near), outside):
        assert folder.stat().st_mode & 0o777 == 0o700
    outside.rmdir()
    outside.symlink_to(tmp_path)
    with pytest.raises(SlotError, match="not a private folder"):
        slot.run_dir(far)
    near.release()
    far.release()
