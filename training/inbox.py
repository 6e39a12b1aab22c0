"""The other end of an `outbox`: where a task's words come out."""

import asyncio
from collections.abc import Iterable

from training.ports import Hear, MoreTime, Word


def pass_on(words: Iterable[Word], on_message: Hear, limit: asyncio.Timeout) -> None:
    """What is told goes to who listens; more time goes to `limit`, which is that of the task."""
    for word in words:
        if isinstance(word, MoreTime):
            limit.reschedule(asyncio.get_running_loop().time() + word.seconds)
        else:
            on_message(word)
