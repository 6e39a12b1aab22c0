"""What a process of its own makes of an upload: the same bytes, and no pandas unless there are dates as texts."""

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from training.ingest import ingest
from training.upload import IngestOptions

PLAIN = "a,b,y\n" + "".join(f"{number},{'xy'[number % 2]},{number % 3}\n" for number in range(40))
DATED = "when,b,y\n" + "".join(
    f"{'' if number == 7 else f'2026-01-{number % 28 + 1:02}T10:00:00.25+02:00'},{number},{number % 3}\n"
    for number in range(40)
)
SCRIPT = """
import sys, msgspec
from training.ingest_worker import ingest
from training.upload import IngestOptions
result = ingest(sys.argv[1], IngestOptions(out_dir=sys.argv[2]))
had = "pandas" in sys.modules
import pyarrow as pa
frame = pa.table({"a": [1, 2]}).to_pandas()
assert pa.Table.from_pandas(frame).column("a").to_pylist() == [1, 2]
print(msgspec.json.encode([had, result.digest]).decode())
"""


@pytest.mark.parametrize(("text", "needs_pandas"), [(PLAIN, False), (DATED, True)], ids=["plain", "dated"])
def test_a_process_without_pandas_makes_the_same_dataset(tmp_path: Path, text: str, needs_pandas: bool) -> None:
    source = tmp_path / "upload"
    source.write_text(text)
    folders = [tmp_path / "there", tmp_path / "here"]
    for folder in folders:
        folder.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(source), str(folders[0])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    here = ingest(str(source), IngestOptions(out_dir=str(folders[1])))
    assert msgspec.json.decode(done.stdout) == [needs_pandas, here.digest]
