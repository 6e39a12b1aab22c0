"""Compose projects, one a module: each with its own name, network, volume and ports, all of one image."""

import contextlib
import fcntl
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.support.compose import Compose
from tests.support.ports import lent

PORTS = 16
"""For the nodes of one project: one that comes back has another port than before."""
QUICK = {"COMPOSE_FILE": "compose.yml:tests/compose/quick.yml"}

Started = Callable[..., AbstractContextManager[Compose]]


@pytest.fixture(scope="session")
def image(docker_engine: None) -> None:
    """The image of this source. Of tests side by side one builds it and the others find it built."""
    with (Path(tempfile.gettempdir()) / "parvada-test-image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        Compose("parvadaimage").compose("build", timeout=900)


@pytest.fixture(scope="session")
def project(image: None) -> Started:
    """Makes a project that is gone at the end, its volume too: `project(name, scale, **environment)`."""

    @contextlib.contextmanager
    def started(name: str, scale: int = 3, **environment: str) -> Iterator[Compose]:
        with lent(PORTS) as first:
            made = Compose(name, {"PARVADA_PORTS": f"{first}-{first + PORTS - 1}", **environment})
            made.down(volumes=True)
            try:
                made.up(scale)
                yield made
            finally:
                made.down(volumes=True)

    return started
