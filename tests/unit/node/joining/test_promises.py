"""Promises that outlive the process, and proposers that meet them over a network of post calls in memory."""

import asyncio
from pathlib import Path
from typing import cast

import msgspec

from consensus.state import NodeId
from discovery.promises import Ask, Ballot
from node.joining.promises import PATH, Promises
from node.peering.client import PeerClient
from node.peering.words import PeerUnreachable

IDS = [NodeId(letter * 32) for letter in "abc"]


class Wire:
    """`post` to the acceptor of a node, unless it is down."""

    def __init__(self) -> None:
        self.nodes: dict[NodeId, Promises] = {}
        self.down: set[NodeId] = set()

    async def post(self, node: NodeId, path: str, body: bytes = b"", timeout: float = 10.0) -> bytes:
        assert path == PATH
        if node in self.down:
            raise PeerUnreachable(f"{node} is down")
        return msgspec.json.encode(await self.nodes[node].answer(msgspec.json.decode(body, type=Ask)))


def group(folder: Path) -> Wire:
    wire = Wire()
    for node in IDS:
        start(wire, folder, node)
    return wire


def start(wire: Wire, folder: Path, node: NodeId) -> Promises:
    (folder / node).mkdir(exist_ok=True)
    wire.nodes[node] = Promises(node, folder / node, 3, "parvada", cast(PeerClient, wire))
    return wire.nodes[node]


def others(node: NodeId) -> list[NodeId]:
    return [each for each in IDS if each != node]


async def test_a_majority_decides_and_everybody_hears_the_same_later(tmp_path: Path) -> None:
    a, b, c = IDS
    wire = group(tmp_path)
    wire.down = {c}
    decided = await wire.nodes[a].propose(others(a))
    assert decided is not None
    assert decided.node_id == a
    # All start again, without the one that was to form: what was decided is still decided.
    for node in IDS:
        start(wire, tmp_path, node)
    wire.down = {a}
    assert wire.nodes[b].named == a
    assert await _insist(wire, b) == decided
    assert await _insist(wire, c) == decided


async def test_a_minority_decides_nothing(tmp_path: Path) -> None:
    wire = group(tmp_path)
    wire.down = set(IDS[1:])
    assert await wire.nodes[IDS[0]].propose(others(IDS[0])) is None


async def test_two_proposers_at_once_agree(tmp_path: Path) -> None:
    wire = group(tmp_path)
    first, second = await asyncio.gather(_insist(wire, IDS[0]), _insist(wire, IDS[1]))
    assert first == second


async def test_a_promise_is_on_disk_before_it_is_given(tmp_path: Path) -> None:
    wire = group(tmp_path)
    assert (await wire.nodes[IDS[0]].answer(Ask(Ballot(5, "b"), 3))).granted
    again = start(wire, tmp_path, IDS[0])
    refused = await again.answer(Ask(Ballot(4, "z"), 3))
    assert not refused.granted
    assert refused.promised.ballot == Ballot(5, "b")


async def _insist(wire: Wire, node: NodeId) -> object:
    async with asyncio.timeout(30):
        while (decided := await wire.nodes[node].propose(others(node))) is None:
            pass
    return decided
