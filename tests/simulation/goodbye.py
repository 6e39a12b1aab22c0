"""A server that stops on request: it asks the leader first, as `node.joining.registration.say_goodbye` does."""

import asyncio
from typing import TYPE_CHECKING

from tests.simulation.server import Server

if TYPE_CHECKING:
    from tests.simulation.world import World

_SECONDS = 3.0
"""After this it stops all the same."""


class Goodbye:
    """`said` once it is over: the server has stopped, or was gone before."""

    def __init__(self, world: "World", name: str) -> None:
        self._world, self._me = world, world.servers[name]
        self._deadline = world.clock.now + _SECONDS
        self._leader: Server | None = None
        self._answer: asyncio.Task[bool] | None = None
        world.note(name, "is about to stop")
        if self._me.mind is not None:
            self._me.mind.stop_registering()

    def said(self) -> bool:
        world, name = self._world, self._me.me
        if world.servers.get(name) is not self._me:
            return True
        if not self._granted() and world.clock.now < self._deadline:
            return False
        world.crash(name)
        return True

    def _granted(self) -> bool:
        answer = self._answer
        lost = self._leader is None or self._world.servers.get(self._leader.me) is not self._leader
        if answer is None or lost or (answer.done() and (answer.cancelled() or not answer.result())):
            self._ask()
            return False
        return answer.done()

    def _ask(self) -> None:
        """The leader, if this server knows one and reaches it."""
        assert self._me.mind is not None
        known = self._me.mind.log.status.leader
        self._leader = self._world.servers.get(known or "")
        reached = known == self._me.me or self._world.network.linked(self._me.me, known or "")
        self._answer = None
        if self._leader is not None and self._leader.mind is not None and reached:
            self._answer = self._leader.mind.take_notice(self._me.me, _SECONDS)
