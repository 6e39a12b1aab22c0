"""Sequences of faults that hardly ever come by chance, each aimed at one rule: a plot is repeated all through a run.

Beside them a run has only few random faults, so that the plot gets as far as it should.
"""

from collections.abc import Callable, Generator, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from consensus.core.configuration import VoterChange
from consensus.wire.frames import AppendEntries, AppendReply, Message, RequestVote, TimeoutNow, VoteGranted
from tests.simulation.network import at_once
from tests.simulation.server import Server
from tests.simulation.world import World

Story = Generator[float, None, None]
"""What a plot does, with the seconds to wait in between."""
HAND_OVER_SECONDS = 0.06


class Plot:
    """Tells one story again and again."""

    def __init__(self, world: World, tell: Callable[[World], Story]) -> None:
        self._world, self._tell = world, tell
        self._story = tell(world)
        self._next = world.clock.now

    def step(self) -> None:
        while self._world.clock.now >= self._next:
            pause = next(self._story, None)
            if pause is None:
                self._story, pause = self._tell(self._world), 0.3
            self._next = self._world.clock.now + pause


def _part(world: World, *sides: Sequence[str]) -> None:
    """Nothing passes between the sides, and both ends of what connected them notice."""
    side = {name: number for number, names in enumerate(sides) for name in names}
    names = sorted(world.disks)
    cut = {(a, b) for a in names for b in names if a != b and side.get(a, 0) != side.get(b, 0)}
    world.network.blocked = cut
    for a, b in sorted(cut):
        world.network.reset(a, b)
    world.note("", f"partition: {' | '.join(''.join(names) for names in sides)}")


def _followers(world: World, leader: Server) -> list[str]:
    return [name for name in leader.core.electorate.voters if name != leader.me and name in world.servers]


# ------------------------------------------------------------ elections
def hand_overs(world: World) -> Story:
    """Several voters are told to take over, all hear of it at the same moment, one of them with an old log; votes come
    twice."""
    late = {"": ""}

    def delay(sender: str, to: str, message: Message) -> tuple[float, ...]:
        if isinstance(message, TimeoutNow):
            return (0.4 - world.clock.now % 0.4,)
        if isinstance(message, AppendEntries) and to == late.get(sender):
            return (0.8,)
        if isinstance(message, RequestVote):
            return (world.rng.choice((0.0, 0.02, 0.06)),)
        return (0.0, 0.001, 0.05) if isinstance(message, VoteGranted) else (0.0,)

    world.network.delay = delay
    yield world.rng.uniform(0.4, 0.8)
    leader = world.leader()
    if leader is None or len(_followers(world, leader)) < 2:
        return
    rivals = world.rng.sample(_followers(world, leader), 2)
    for name in rivals:
        world.hand_over(leader, name, HAND_OVER_SECONDS)
        yield HAND_OVER_SECONDS + 0.01
    if world.rng.random() < 0.5:
        late[leader.me] = rivals[0]
    for _ in range(5):
        if leader.me in world.servers:
            world.put(leader.me)
    yield world.rng.uniform(0.4, 1.2)


# ------------------------------------------------------------ answers
def stale_answers(world: World) -> Story:
    """A leader and a friend accept entries that no majority gets; others overwrite them; the same leader is elected
    once more, and hears only then what the friend confirmed long ago, while it gets nothing new."""
    leader = world.leader()
    if leader is None or len(_followers(world, leader)) < 4:
        yield 0.1
        return
    me, (friend, *others) = leader.me, world.rng.sample(_followers(world, leader), 4)

    def keep_answers(sender: str, to: str, message: Message) -> tuple[float, ...]:
        return (0.0, 60.0) if (sender, to) == (friend, me) and isinstance(message, AppendReply) else (0.0,)

    def slow_others(sender: str, to: str, message: Message) -> tuple[float, ...]:
        return (0.1,) if to in others[1:] and isinstance(message, AppendEntries) else (0.0,)

    world.network.delay = keep_answers
    _part(world, [me, friend], others)
    world.repeat(leader, world.put(me), times=200)
    yield 0.9
    world.network.delay = at_once
    world.heal()
    yield 0.6
    yield from _lead_again(world, me)
    world.network.blocked = {(me, friend)}
    world.network.delay = slow_others
    world.network.held = [msgspec.structs.replace(each, due=0.0) for each in world.network.held]
    for _ in range(8):
        if me in world.servers:
            world.put(me)
        yield 0.1
    world.network.delay = at_once
    world.heal()
    yield 0.4


def _lead_again(world: World, name: str) -> Story:
    """The leadership goes to a certain server, within a second."""
    for _ in range(10):
        leader = world.leader()
        if leader is not None and leader.me == name:
            return
        if leader is not None and name in leader.core.electorate.voters:
            world.hand_over(leader, name, 0.1)
        yield 0.1


# ------------------------------------------------------------ voters
def overlapping_changes(world: World) -> Story:
    """A leader that is cut off from the other voters, though not from two learners, gives both of them a vote at once,
    while the others elect a new one; later they lose it again."""
    leader = world.leader()
    if leader is None:
        yield 0.1
        return
    learners = sorted(world.servers.keys() - set(leader.core.electorate.voters))[:2]
    if len(learners) == 2:
        rest = [name for name in world.disks if name not in {leader.me, *learners}]
        _part(world, [leader.me, *learners], rest)
        for learner in learners:
            world.change_voters(leader, VoterChange(add=True, node=learner))
        for name in (leader.me, *(name for name in rest if name in world.servers)):
            world.put(name)
        yield 1.4
        world.heal()
        yield 1.0
        return
    for name in reversed(leader.core.electorate.voters):
        if len(leader.core.electorate.voters) > 3 and name != leader.me:
            world.change_voters(leader, VoterChange(add=False, node=name))
            break
    yield 0.1


PLOTS: Final = MappingProxyType[str, Callable[[World], Story]](
    {
        "hand-overs": hand_overs,
        "stale answers": stale_answers,
        "overlapping changes": overlapping_changes,
    }
)
