"""One server a module: tests of a module share it and keep to names of their own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.clock import Clock
from tests.unit.node.http.world import World, world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clock() -> AsyncIterator[Clock]:
    """The time of the module's event loop: what one test has advanced stays so for the others, which share a server."""
    loop = asyncio.get_running_loop()
    moved = Clock(loop)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "time", moved)
        yield moved


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(clock: Clock, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(clock: Clock, tmp_path: Path) -> AsyncIterator[World]:
    """A server of its own, for a test of what depends on all that has ever happened."""
    async with world(tmp_path) as made:
        yield made
