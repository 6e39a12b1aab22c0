"""A node begins with one front, and has as many as its share of the machine once it knows it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from node.config import Client
from node.processes.children import Child, Supervisor
from node.processes.fronts import MOST, SETTLE_SECONDS, Fronts
from tests.support.clock import Clock


class Quiet(Supervisor):
    """Notes what it is to start."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def spawn(self, argv: Sequence[str], env: Mapping[str, str] | None, name: str, **_: object) -> Child:
        assert argv[-1] == "serving"
        assert env is not None
        assert (env["PARVADA_PORT"], env["PARVADA_NODE_ID"]) == ("8080", "n")
        self.names.append(name)
        return Child(self, argv, env, name, None, 0.0)


@contextlib.asynccontextmanager
async def fronts(share: Callable[[], int], given: int = 0) -> AsyncIterator[Quiet]:
    supervisor = Quiet()
    made = Fronts(supervisor, Client(fronts=given), {"PARVADA_NODE_ID": "n"}, share)
    running = asyncio.create_task(made.run())
    try:
        yield supervisor
    finally:
        running.cancel()
        await asyncio.wait([running])


async def test_fronts_follow_the_share_and_none_is_ended(clock: Clock) -> None:
    share = [1]
    async with fronts(lambda: share[-1]) as supervisor:
        await clock.advance(SETTLE_SECONDS / 2)
        assert supervisor.names == ["front-1"]
        share.append(3)
        await clock.advance(SETTLE_SECONDS)
        assert supervisor.names == ["front-1", "front-2", "front-3"]
        share.append(1)
        await clock.advance(2 * SETTLE_SECONDS)
        share.append(100)
        await clock.advance(SETTLE_SECONDS)
        assert len(set(supervisor.names)) == len(supervisor.names) == MOST


async def test_a_node_that_takes_no_work_answers_all_the_same(clock: Clock) -> None:
    async with fronts(lambda: 0) as supervisor:
        await clock.advance(SETTLE_SECONDS)
        assert supervisor.names == ["front-1"]


async def test_as_many_as_the_operator_says_at_once(clock: Clock) -> None:
    async with fronts(lambda: 1, given=6) as supervisor:
        await clock.advance(0)
        assert len(supervisor.names) == 6
        await clock.advance(2 * SETTLE_SECONDS)
        assert len(supervisor.names) == 6
