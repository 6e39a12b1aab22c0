"""What unit tests share: time that they move."""

import asyncio

import pytest
import pytest_asyncio

from tests.support.clock import Clock


@pytest_asyncio.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time of this test's event loop, which `await clock.advance(seconds)` moves."""
    loop = asyncio.get_running_loop()
    moved = Clock(loop)
    monkeypatch.setattr(loop, "time", moved)
    return moved
