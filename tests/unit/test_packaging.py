"""What the wheel holds: our packages, the files that are not Python, and nothing else."""

import zipfile
from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[2]
PACKAGES = {"node", "consensus", "discovery", "training", "serving", "tui", "parvada"}


def test_the_wheel_has_our_packages_and_their_style_sheets(tmp_path: Path) -> None:
    built = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(built) as wheel:
        names = wheel.namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == PACKAGES
    assert "tui/app.tcss" in names
    assert "parvada/contract/page.css" in names
    assert any(name.endswith("entry_points.txt") for name in names)


def test_the_lock_files_name_no_index_and_no_host() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        assert "://" not in text
        assert "--index-url" not in text
        assert "--hash=sha256:" in text
