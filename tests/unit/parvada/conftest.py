"""The command line called in this process."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from parvada.cli import main
from parvada.cli.settings import Pace

Run = Callable[..., tuple[int, str, str]]


class Waited:
    """The time of a command: it passes only where the command sleeps, and at once."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def clock(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def waited() -> Waited:
    return Waited()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, waited: Waited) -> Run:
    """Run a command in an empty folder and without variables; gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("PARVADA_"):
            monkeypatch.delenv(name)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(list(arguments), Pace(waited.clock, waited.sleep))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
