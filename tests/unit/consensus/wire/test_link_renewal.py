"""A new connection takes the place of one that is up without a gap; one of a secret that is retired is cut."""

import asyncio
from collections.abc import Callable

import pytest

from consensus.wire.dialer import RENEW_SECONDS, Dialer
from consensus.wire.frames import HigherTerm
from consensus.wire.link import Link
from node.identity.pki import Identity
from tests.support.clock import Clock
from tests.unit.consensus.fabric import AUTHORITY, STRANGERS, eventually, identity
from tests.unit.consensus.wire.test_transport import Peer, introduce, started


async def connected(a: Peer, b: Peer) -> None:
    introduce(a, b)
    await eventually("the connection", lambda: a.up == {b.id} and b.up == {a.id})


def links(a: Peer, b: Peer) -> tuple[Link | None, Link | None]:
    return a.transport._links.get(b.id), b.transport._links.get(a.id)


async def watched(a: Peer, b: Peer, done: Callable[[], bool]) -> None:
    """Until `done`: each side can send to the other at every moment."""

    def still() -> bool:
        assert a.say(b.id, HigherTerm(1))
        assert b.say(a.id, HigherTerm(2))
        return done()

    await eventually("the other connection", still)


async def test_a_connection_is_replaced_without_a_gap() -> None:
    a, b = Peer(identity()), Peer(identity())
    async with started(a, b):
        await connected(a, b)
        for _ in range(5):
            before = links(a, b)
            a.transport.renew()
            b.transport.renew()  # only one of the two has dialled
            await watched(a, b, lambda before=before: not {*before} & {*links(a, b)})  # type: ignore[misc]
        assert len(a.transport._admitted) == len(b.transport._admitted) == 1
        a.received.clear()
        b.say(a.id, HigherTerm(3))
        await eventually("a message over the last one", lambda: (b.id, HigherTerm(3)) in a.received)


async def test_it_is_replaced_in_good_time_by_itself(clock: Clock) -> None:
    clock.hold()
    a, b = Peer(identity()), Peer(identity())
    async with started(a, b):
        await connected(a, b)
        before = links(a, b)
        await clock.jump(RENEW_SECONDS - 1.0)
        assert links(a, b) == before
        await clock.jump(1.0)
        await watched(a, b, lambda: not {*before} & {*links(a, b)})


async def test_the_old_one_stays_when_no_new_one_is_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = Peer(identity()), Peer(identity())
    async with started(a, b):
        await connected(a, b)
        before, tried = links(a, b), asyncio.Event()

        async def fail(*_: object) -> None:
            tried.set()

        monkeypatch.setattr(Dialer, "_connect", fail)
        a.transport.renew()
        b.transport.renew()
        await asyncio.wait_for(tried.wait(), 20)
        assert a.say(b.id, HigherTerm(1))
        assert links(a, b) == before
        monkeypatch.undo()
        a.transport.renew()
        b.transport.renew()
        await watched(a, b, lambda: not {*before} & {*links(a, b)})


async def test_connections_of_a_retired_secret_are_cut_and_members_stay_in_reach() -> None:
    ours, theirs, late = identity(), identity(), identity()
    a, b, thief = Peer(ours), Peer(theirs), Peer(late)
    async with started(a, b, thief):
        introduce(a, b, thief)
        await eventually("all connections", lambda: all(len(peer.up) == 2 for peer in (a, b, thief)))
        both: tuple[Identity, ...] = (ours, theirs)
        for mine in both:
            mine.use(AUTHORITY, [STRANGERS])
        for mine in both:
            mine.use(STRANGERS, [AUTHORITY])
        before = links(a, b)
        for peer in (a, b):
            peer.transport.renew()
        await watched(a, b, lambda: not {*before} & {*links(a, b)})
        for mine in both:
            mine.use(STRANGERS)
        for peer in (a, b):
            peer.transport.judge_again()
        await eventually("the thief to be out", lambda: thief.up == set())
        assert (a.up, b.up) == ({b.id}, {a.id})
        assert a.say(b.id, HigherTerm(1))
