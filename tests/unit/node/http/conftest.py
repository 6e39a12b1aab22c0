"""One server a module: tests of a module share it and keep to names of their own."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.unit.node.http.world import World, world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with world(tmp_path_factory.mktemp("api")) as made:
        yield made
