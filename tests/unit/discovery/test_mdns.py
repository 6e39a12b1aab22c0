"""Real multicast DNS on the loopback interface."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable

import msgspec
import pytest

from discovery import mdns
from discovery.mdns import MdnsSource
from discovery.peer import Hint, Peer
from discovery.sources import DuplicateIdentity

LOOPBACK = ["127.0.0.1"]


def multicast_works() -> bool:
    """A packet sent to a group on the loopback interface comes back."""
    group, port = "224.0.0.251", 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        try:
            udp.bind(("", port))
            udp.settimeout(1)
            udp.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
            membership = struct.pack("4s4s", socket.inet_aton(group), socket.inet_aton("127.0.0.1"))
            udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
            udp.sendto(b"x", (group, udp.getsockname()[1]))
            return udp.recv(1) == b"x"
        except OSError:
            return False


@pytest.fixture(autouse=True, scope="module")
def _multicast() -> None:
    if not multicast_works():
        pytest.skip("no multicast on the loopback interface of this machine")


def peer(letter: str, port: int, *, fingerprint: str = "f" * 16) -> Peer:
    return Peer(letter * 32, ("127.0.0.1",), port, port + 1, 8080, "blank", "", fingerprint, "0.1.0")


class Sight:
    """What one source sees now."""

    def __init__(self) -> None:
        self.hints: frozenset[Hint] = frozenset()
        self.changed = asyncio.Event()

    def __call__(self, source: str, hints: frozenset[Hint]) -> None:
        self.hints = hints
        self.changed.set()

    async def until(self, seen: Callable[[frozenset[Hint]], bool], seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not seen(self.hints):
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def nodes() -> AsyncIterator[Callable[..., tuple[MdnsSource, Sight]]]:
    """Makes sources and stops them at the end."""
    made: list[MdnsSource] = []

    def node(me: Peer, **seconds: float) -> tuple[MdnsSource, Sight]:
        made.append(MdnsSource(me, LOOPBACK, **seconds))
        return made[-1], Sight()

    yield node
    await asyncio.gather(*(source.stop() for source in made))


async def test_two_nodes_find_each_other_follow_changes_and_refuse_a_double(
    nodes: Callable[..., tuple[MdnsSource, Sight]],
) -> None:
    one, two, stranger = peer("a", 17001), peer("b", 17002), peer("c", 17003, fingerprint="0" * 16)
    # Nobody has spoken yet, so nobody is silent.
    first, first_sight = nodes(one, rebrowse=0.3, listen=0.0, leave=0.1)
    second, second_sight = nodes(two, listen=0.0, leave=0.1)
    third, third_sight = nodes(stranger, listen=0.0, leave=0.1)
    async with asyncio.timeout(20):
        # It says something new of itself before it is announced at all: not lost.
        one = msgspec.structs.replace(one, raft_port=18001, peer_port=18000)
        await first.update(one)
        async with asyncio.TaskGroup() as group:
            group.create_task(first.start(first_sight))
            group.create_task(second.start(second_sight))
            group.create_task(third.start(third_sight))
            await first_sight.until(lambda hints: hints == set(two.hints))
            await second_sight.until(lambda hints: hints == set(one.hints))
    # A copy of the data folder of the first one is started.
    double, _ = nodes(msgspec.structs.replace(one, peer_port=17004), leave=0.0)
    doubled = asyncio.create_task(double.start(Sight()))
    # What a node says of itself may change while it runs.
    moved = msgspec.structs.replace(two, state="member", cluster_id="c1", peer_port=17009)
    await second.update(moved)
    await first_sight.until(lambda hints: hints == set(moved.hints))
    # What was missed is found by the next browsing.
    first._records.clear()
    first_sight("mdns", frozenset())
    await first_sight.until(lambda hints: hints == set(moved.hints))
    with pytest.raises(DuplicateIdentity, match=one.id):
        await doubled
    assert second_sight.hints == set(one.hints), "the one that was first stays"
    # A node that stops takes its record back.
    await second.stop()
    await first_sight.until(lambda hints: not hints)
    assert third_sight.hints == frozenset(), "of another cluster"


async def test_where_multicast_is_impossible_the_node_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """An address that is no interface's (TEST-NET-1): said once, nothing raised."""
    source = MdnsSource(peer("e", 17008), ["192.0.2.251"], rebrowse=0.02)
    await source.start(Sight())
    assert caplog.records
    await source.update(peer("e", 17008))
    await source.stop()
    assert [record.getMessage() for record in caplog.records] == ["mdns.unavailable"]


async def test_a_flood_of_names_stays_bounded() -> None:
    source = MdnsSource(peer("a", 17010), LOOPBACK)
    for number in range(5000):
        source._enqueue(f"{number:032x}.{mdns.SERVICE}")
        source._enqueue(f"garbage-{number}.{mdns.SERVICE}")
        source._keep(f"{number:032x}.{mdns.SERVICE}", frozenset([Hint("10.0.0.1", 1 + number)]))
    assert source._unread.qsize() <= mdns.MAX_RECORDS
    assert len(source._records) == mdns.MAX_RECORDS
    for number in range(5000):
        source._keep(f"{number:032x}.{mdns.SERVICE}", frozenset())
    assert not source._records
