"""Flocks of local processes, one a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.flock import Flock, running


@pytest.fixture(scope="module")
def flock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flock]:
    """Three nodes without Ray, ready and voting; killed ones come back by themselves."""
    folder: Path = tmp_path_factory.mktemp("flock")
    with running(folder / "data", 3) as started:
        yield started
