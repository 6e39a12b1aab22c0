"""One server a module: tests of a module share it and keep to names of their own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.unit.node.http.world import World, world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(tmp_path: Path) -> AsyncIterator[World]:
    """A server of its own, for a test of what depends on all that has ever happened."""
    async with world(tmp_path) as made:
        yield made
