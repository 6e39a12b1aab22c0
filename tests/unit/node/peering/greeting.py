"""One round of a greeter, to its end."""

import asyncio

from node.peering.greeter import Greeter


async def greet_due(greeter: Greeter) -> None:
    """Greet every place whose time has come; returns when all have answered or failed."""
    async with asyncio.TaskGroup() as group:
        greeter.greet_due(group)
