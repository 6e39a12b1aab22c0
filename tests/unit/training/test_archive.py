"""The results file of a job: what cannot be read is said to be so, and who only hears of it needs no Arrow."""

import pickle
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from immutables import Map

from consensus.state import Candidate, CandidateId, CandidateState, Digest, Job, JobId, JobState, Json, Tally, Unit
from training import archive
from training.results import BadResults, Sealed

SOUND = archive.SCHEMA.empty_table()


def candidate(number: int, scores: dict[int, float | None], state: CandidateState = CandidateState.OK) -> Candidate:
    return Candidate(
        id=CandidateId(f"0.{number}"),
        unit=0,
        estimator="Ridge",
        params=Json(b"{}"),
        seed=1,
        folds_total=2,
        state=state,
        scores=Map(scores),
        fit_seconds=1.0 * len(scores),
        predict_us=2.0 * len(scores),
    )


def job(*candidates: Candidate, results: str = "") -> Job:
    unit = Unit("d", 1, "y", "regression", "r2", Json(b"{}"), tally=Tally(3, 2, greater_is_better=True, proposed=3))
    found = Map({each.id: each for each in candidates})
    return Job(JobId("j"), "", JobState.CANCELLED, Json(b"{}"), (unit,), found, 0.0, "", results=Digest(results))


@pytest.mark.parametrize("content", [b"", b"ARROW1", b"no Arrow file at all, but long enough to be one"])
def test_what_is_no_file_of_results(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    for read in (archive.read_candidates, archive.read_costs):
        with pytest.raises(BadResults, match=str(path)):
            read(str(path))


@pytest.mark.parametrize("part", [0.3, 0.6, 0.99])
def test_a_file_that_is_cut_or_damaged(tmp_path: Path, part: float) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    archive.seal(job(*(candidate(n, {0: 0.5, 1: 0.5}) for n in range(300))), [], "", str(whole))
    content = whole.read_bytes()
    broken.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(BadResults):
        archive.read_candidates(str(broken))


def test_a_table_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, pa.schema([("a", pa.int8())])):
        pass
    with pytest.raises(BadResults, match="other columns"):
        archive.read_candidates(str(path))


def test_a_job_that_knows_less_than_its_file_loses_nothing(tmp_path: Path) -> None:
    first, second = str(tmp_path / "first"), str(tmp_path / "second")
    before = [candidate(0, {0: 0.1, 1: 0.2}), candidate(1, {0: 0.3, 1: None}), candidate(2, {0: 0.5})]
    archive.seal(job(*before), [], "", first)
    now = [candidate(0, {}, CandidateState.PENDING), candidate(1, {1: None}, CandidateState.PENDING)]
    sealed = archive.seal(job(*now, results="a"), [], first, second)
    assert sealed.keep == (), "what is only in the file is not to be shadowed by what the state knows"
    assert archive.read_candidates(second) == before
    assert len(archive.read_costs(second)) == 5


def test_candidates_are_read_in_pieces(tmp_path: Path) -> None:
    path, most = str(tmp_path / "file"), archive.BATCH_ROWS
    archive.seal(job(*(candidate(n, {0: 0.5}) for n in range(2 * most + 3))), [], "", path)
    whole = archive.read_candidates(path)
    assert [each.id for each in whole] == [f"0.{n}" for n in range(2 * most + 3)]
    assert archive.read_candidates(path, 0, most) == whole[:most]
    assert archive.read_candidates(path, most, 2 * most) == whole[most:]
    assert archive.read_candidates(path, 3 * most, most) == []


def test_what_became_of_a_seal_is_told_without_arrow() -> None:
    """The agent hears of it from a process of its own: a hundred megabytes of libraries are not for it."""
    told = pickle.dumps((Sealed((), 0, 0, 0), BadResults("no")))
    code = f"import pickle, sys; pickle.loads({told!r}); sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
