"""The blocking client is the asynchronous one without `async` and `await`, and up to date."""

from pathlib import Path

import pytest

import parvada
from tools.blocking_client import TEXTS, blocking

PACKAGE = Path(parvada.__file__).parent
SOURCE = (PACKAGE / "aio.py").read_text()


def test_the_blocking_client_is_up_to_date() -> None:
    made = (PACKAGE / "client.py").read_text()
    assert made == blocking(SOURCE), "parvada/client.py: run `make generate`, and change parvada/aio.py only"


def test_a_method_becomes_a_blocking_one_and_a_loop_over_events_is_handed_on() -> None:
    method = """
    async def once(self) -> AsyncIterator[int]:
        \"\"\"As in `async for number in client.once()`.\"\"\"
        async with await self._open() as opened:
            for number in await opened.numbers():
                yield number
"""
    made = """
    def once(self) -> Iterator[int]:
        \"\"\"As in `for number in client.once()`.\"\"\"
        with self._open() as opened:
            yield from opened.numbers()
"""
    assert blocking(SOURCE + method).endswith(made)


def test_a_text_of_the_table_that_is_no_longer_in_the_source_is_told() -> None:
    gone = next(iter(TEXTS))
    with pytest.raises(ValueError, match="0 times"):
        blocking(SOURCE.replace(gone, ""))
