"""One compose project for the whole tier, built from this source."""

from collections.abc import Iterator

import pytest

from tests.support.compose import Compose


@pytest.fixture(scope="session")
def flock(docker_engine: None) -> Iterator[Compose]:
    """Three containers, up and healthy; all of it is removed at the end, the volume too. The modules of the tier take
    it as the one before left it."""
    project = Compose("parvadatest")
    project.down(volumes=True)
    project.compose("build", timeout=900)
    try:
        project.up(3)
        yield project
    finally:
        project.down(volumes=True)
