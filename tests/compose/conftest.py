"""One compose project for the whole tier, built from this source."""

from collections.abc import Iterator

import pytest

from tests.support.compose import Compose


@pytest.fixture(scope="module")
def flock(docker_engine: None, request: pytest.FixtureRequest) -> Iterator[Compose]:
    """Three containers, up and healthy; all of it is removed at the end, the volume too."""
    project = Compose("parvadatest")
    project.down(volumes=True)
    project.compose("build", timeout=900)
    try:
        project.up(3)
        yield project
    finally:
        if request.session.testsfailed:
            print(project.logs())  # noqa: T201  the containers are gone afterwards
        project.down(volumes=True)
