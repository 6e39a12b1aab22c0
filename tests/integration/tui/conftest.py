"""What the tests of the screen share: an app ends with its process; what it was in the middle of is broken off."""

import gc
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.unit.parvada.scripted import break_off

UNCLOSED = (
    "ignore:Exception ignored in. <(function _SelectorTransport|socket.socket):pytest.PytestUnraisableExceptionWarning"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A connection that is made while app and node both end may outlive its loop. That is found when it is collected,
    in any test, and is nothing that a person could see: the process has ended by then."""
    for item in items:
        if "/integration/tui/" in item.path.as_posix():
            item.add_marker(pytest.mark.filterwarnings(UNCLOSED))


@pytest_asyncio.fixture(autouse=True)
async def nothing_left_open() -> AsyncIterator[None]:
    """What is left is collected here, not in somebody else's test."""
    yield
    await break_off()
    gc.collect()
