"""Rotation between real edges of nodes (files, peer ports over mutual TLS), with the log in memory."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import msgspec
import pytest

from consensus.messages import AbandonRotation, BeginRotation, ExcuseNode, JoinMember
from consensus.ports import CommandRejected, NoQuorum
from consensus.state import Member, NodeId, RotationPhase
from discovery.peer import Peer
from node.identity.keyring import Keyring
from node.identity.pki import Authority, Identity, NodeKey
from node.identity.ring import RingStore
from node.identity.secret import SecretError, admin_token, digest_of, load_secret
from node.membership.rotation import OFFER_SECONDS, PATH, Rotator
from node.peering.client import PeerClient
from node.peering.gate import Presence
from node.peering.server import PeerApi
from node.peering.table import PeerTable
from node.peering.words import Grant, OtherSecret, PeerRefused
from tests.support.clock import Clock
from tests.support.memory_log import MemoryLog, MemoryNetwork
from tests.unit.node.fabric import PATIENT_SECONDS
from tests.unit.node.wait import eventually

FIRST = b"the first secret, of 32 bytes..."
SETTLED = RotationPhase.SETTLED


class Keeper:
    """A node with all that rotation touches."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.slot = folder
        self.slot.mkdir(parents=True)
        self.file = folder / "secret"
        self.file.write_text(FIRST.hex())
        self.file.chmod(0o600)
        self.key = NodeKey.generate()
        self.keyring = Keyring(RingStore(folder, self.file, owned=True), self.key, ["127.0.0.1"])
        self.identity = self.keyring.identity
        self.id = self.identity.id
        self.table = PeerTable(self.id)
        self.client = PeerClient(self.identity, self.table, connect_seconds=PATIENT_SECONDS)
        self._clock = clock
        self.log: MemoryLog | None = None
        self.api = PeerApi(self.identity, self.table, Presence(self))
        self.port = 0

    # the gate of its peer port: who is a member says the log
    def is_member(self, node: NodeId) -> bool:
        return self.log is not None and node in self.log.state.members

    def connected(self) -> frozenset[NodeId]:
        return frozenset()

    def hello(self) -> Peer:
        fingerprint = self.identity.fingerprint
        return Peer(self.id, ("127.0.0.1",), self.port, 1, 1, "member", "c0ffee", fingerprint, "0.1.0")

    async def join(self, peer: Peer) -> Grant | None:
        return None

    def standing(self) -> None:
        """It meets no other cluster."""

    async def stopping(self, node: NodeId, timeout: float) -> bool:
        return False

    def joins(self, log: MemoryLog) -> None:
        self.log = log
        self.rotator = Rotator(
            self.id, self.keyring, self.client, log, None, self.client.renew, tick=0.02, retry=0.05, clock=self._clock
        )
        self.api.mount(self.rotator.routes())

    async def fetch(self, node: "Keeper", digest: str) -> bytes:
        return await self.client.call(node.id, "GET", f"{PATH}?digest={digest}")


class World:
    def __init__(self, folders: list[Path], members: int) -> None:
        self.later = 0.0
        """Seconds that a test has put on top of real time."""
        self.nodes = nodes = [Keeper(folder, lambda: time.monotonic() + self.later) for folder in folders]
        self.network = network = MemoryNetwork([node.id for node in nodes[:members]])
        self.log = network.logs[nodes[0].id]
        self.running: dict[NodeId, asyncio.Task[None]] = {}

    def run(self, *nodes: Keeper) -> None:
        for node in nodes:
            self.running[node.id] = asyncio.create_task(node.rotator.run())

    async def begin(self, node: Keeper) -> None:
        assert node.log is not None
        log = node.log
        await node.rotator.begin(lambda command: log.propose(command, actor="test"))

    async def reaches(self, phase: RotationPhase, generation: int) -> None:
        def there() -> bool:
            found = self.log.state.rotation
            return (found.phase, found.generation) == (phase, generation)

        await eventually(there, 40)


@contextlib.asynccontextmanager
async def world(folder: Path, members: int = 3, strangers: int = 0) -> AsyncIterator[World]:
    made = World([folder / f"{number}" for number in range(members + strangers)], members)
    nodes = made.nodes
    for node in nodes:
        node.port = await node.api.start("127.0.0.1", 0)
    for number, node in enumerate(nodes):
        for other in nodes:
            node.table.learn(other.hello())
        if number < members:
            member = Member(node.id, f"node-{number}", ("127.0.0.1",), node.port, 1, 1, 1, "0.1.0", 0.0)
            await made.log.propose(JoinMember(member), actor="test")
            node.joins(made.network.logs[node.id])
    try:
        yield made
    finally:
        for task in made.running.values():
            task.cancel()
        ended = await asyncio.gather(*made.running.values(), return_exceptions=True)
        for node in nodes:
            await node.client.close()
            await node.api.stop()
    assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended


def files_with(folder: Path, secret: bytes) -> set[str]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {path.name for path in found if secret in (content := path.read_bytes()) or secret.hex().encode() in content}


def kept(folder: Path) -> list[Path]:
    """What nodes remember beside the secret's file."""
    return list(folder.glob("*/secrets.json"))


# ---------------------------------------------------------------- all together
async def test_calls_go_on_while_all_nodes_change_to_the_new_secret(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        calls, stop = 0, asyncio.Event()

        async def call(caller: Keeper, callee: Keeper) -> None:
            nonlocal calls
            while not stop.is_set():
                await caller.client.call(callee.id, "GET", "/peer/hello")
                calls += 1

        load = [asyncio.create_task(call(one, other)) for one in made.nodes for other in made.nodes if one is not other]
        made.run(*made.nodes)
        for generation in (2, 3):
            before = calls
            await made.begin(made.nodes[generation - 2])
            await made.reaches(SETTLED, generation)
            await eventually(lambda before=before: calls > before + 20)  # type: ignore[misc]
        stop.set()
        await asyncio.gather(*load)
        secrets = {load_secret(node.file) for node in made.nodes}
        assert len(secrets) == 1
        assert FIRST not in secrets
        assert files_with(tmp_path, FIRST) == set()
        assert files_with(tmp_path, secrets.pop()) == {"secret"}
        await eventually(lambda: kept(tmp_path) == [])


async def test_the_old_secret_opens_nothing_afterwards(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        first = made.nodes[0]
        identity = Identity(Authority(FIRST), NodeKey.generate(), ["127.0.0.1"])
        thief = PeerClient(identity, PeerTable(identity.id))
        alias = msgspec.structs.replace(first.hello(), id=identity.id)
        assert (await thief.greet("127.0.0.1", first.port, alias)).peer.id == first.id
        context = Identity(Authority(FIRST), NodeKey.generate(), ["127.0.0.1"]).client_context()
        reader, writer = await asyncio.open_connection("127.0.0.1", first.port, ssl=context)
        made.run(*made.nodes)
        await made.begin(first)
        await made.reaches(SETTLED, 2)
        with pytest.raises(OtherSecret, match="has another cluster secret than this one"):
            await thief.greet("127.0.0.1", first.port, alias)
        writer.write(b"GET /peer/hello HTTP/1.1\r\nHost: x\r\n\r\n")  # over the connection that was open before
        assert b" 403 " in await asyncio.wait_for(reader.readline(), 30)
        writer.transport.abort()
        with pytest.raises(aiohttp.ClientError):
            await _blind_hello(first.port)
        await thief.close()
        admins = first.keyring.admin_sha256s
        assert len(admins) == 1
        assert admin_token(load_secret(first.file)) != admin_token(FIRST)


async def _blind_hello(port: int) -> None:
    """By one who does not mind the server's certificate: the server must."""
    context = Identity(Authority(FIRST), NodeKey.generate(), ["127.0.0.1"]).client_context()
    context.verify_mode = ssl.CERT_NONE
    async with aiohttp.ClientSession() as session, session.get(f"https://127.0.0.1:{port}/peer/hello", ssl=context):
        pass


async def test_both_admin_tokens_are_good_until_the_old_secret_is_retired(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        one, other = made.nodes
        made.run(one)
        await made.begin(one)
        await eventually(lambda: made.log.state.rotation.confirmed == (one.id,))
        assert (len(one.keyring.admin_sha256s), len(other.keyring.admin_sha256s)) == (2, 1)
        assert one.keyring.admin_sha256s[0] == other.keyring.admin_sha256s[0], "the old one is the first to be taken"
        assert one.keyring.token_seeds[0] == other.keyring.token_seeds[0]
        made.run(other)
        await made.reaches(SETTLED, 2)
        assert one.keyring.admin_sha256s == other.keyring.admin_sha256s
        assert len(one.keyring.admin_sha256s) == 1


async def test_the_credentials_of_an_epoch_are_those_of_its_own_secret(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        one, other = made.nodes
        tokens = {one.identity.ray_credentials(1, "c", [], one.keyring.authority_with("")).token}
        made.run(one)
        await made.begin(one)
        await eventually(lambda: made.log.state.rotation.confirmed == (one.id,))
        coming = made.log.state.rotation.coming
        tokens.add(one.identity.ray_credentials(1, "c", [], one.keyring.authority_with("")).token)
        assert len(tokens) == 1, "a worker of the old epoch, on a node that has both"
        tokens.add(one.identity.ray_credentials(1, "c", [], one.keyring.authority_with(coming)).token)
        made.run(other)
        await made.reaches(SETTLED, 2)
        for node in made.nodes:
            tokens.add(node.identity.ray_credentials(1, "c", [], node.keyring.authority_with(coming)).token)
        assert len(tokens) == 2
        with pytest.raises(SecretError, match="is not kept any more"):
            one.keyring.authority_with(digest_of(FIRST))


# ---------------------------------------------------------------- handing over
async def test_only_members_get_the_new_secret_and_only_while_it_is_to_come(tmp_path: Path) -> None:
    async with world(tmp_path, 2, strangers=1) as made:
        one, other, stranger = made.nodes
        with pytest.raises(PeerRefused) as refused:
            await other.fetch(one, digest_of(FIRST))
        assert refused.value.status == 404
        await made.begin(one)
        coming = made.log.state.rotation.coming
        assert digest_of(bytes.fromhex((await other.fetch(one, coming)).decode())) == coming
        for asked in (digest_of(FIRST), "", "x" * 64, "%00"):
            with pytest.raises(PeerRefused) as refused:
                await other.fetch(one, asked)
            assert refused.value.status == 404
        with pytest.raises(PeerRefused) as refused:
            await stranger.fetch(one, coming)
        assert refused.value.status == 403
        made.run(one, other)
        await made.reaches(SETTLED, 2)
        with pytest.raises(PeerRefused) as refused:
            await other.fetch(one, coming)
        assert refused.value.status == 404


async def test_a_secret_that_is_not_the_one_in_the_log_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 3) as made:
        liar, mute, honest = made.nodes
        await made.begin(liar)
        coming = made.log.state.rotation.coming
        true = liar.keyring.secret_with(coming)
        assert true is not None
        for lie in (b"\x07" * 32, b"short"):
            monkeypatch.setattr(liar.keyring, "secret_with", lambda _, lie=lie: lie)
            with pytest.raises(SecretError):
                await mute.rotator._fetch(coming)
        monkeypatch.undo()
        assert await honest.rotator._fetch(coming) == true


# ---------------------------------------------------------------- beginnings that come to nothing
async def test_a_beginning_that_is_rejected_or_lost_leaves_nothing_behind(clock: Clock, tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        one, other = made.nodes
        made.run(one, other)

        async def rejected(command: BeginRotation) -> object:
            return await made.log.propose(BeginRotation(9, command.digest, command.source), actor="test")

        with pytest.raises(CommandRejected):
            await one.rotator.begin(rejected)
        await eventually(lambda: not one.keyring.held.also)

        async def lost(command: BeginRotation) -> object:
            raise NoQuorum("it may be committed, or not")

        with pytest.raises(NoQuorum):
            await one.rotator.begin(lost)
        made.later += OFFER_SECONDS / 2
        before = len(made.network.committed)
        await clock.advance(1.0)
        assert len(made.network.committed) == before, "before it acts, a node passes through the log"
        assert one.keyring.held.also, "its command may still commit"
        made.later += OFFER_SECONDS / 2
        await eventually(lambda: not one.keyring.held.also)
        made.network.kill(other.id)
        with pytest.raises(NoQuorum):
            await clock.run(made.begin(one))
        made.network.revive(other.id)
        await eventually(lambda: kept(tmp_path) == [])
        assert files_with(tmp_path, FIRST) == {"secret"}
        await made.begin(other)
        await made.begin(one)  # which is under way already
        await made.reaches(SETTLED, 2)


async def test_an_abandoned_secret_is_forgotten(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as made:
        one, other, away = made.nodes
        made.run(one, other)
        await made.begin(one)
        await eventually(lambda: len(made.log.state.rotation.confirmed) == 2)
        await made.log.propose(AbandonRotation(), actor="test")
        made.later += OFFER_SECONDS
        await eventually(lambda: not any(node.keyring.held.also for node in made.nodes))
        await eventually(lambda: kept(tmp_path) == [])
        assert {load_secret(node.file) for node in made.nodes} == {FIRST}
        made.run(away)
        await made.begin(other)
        await made.reaches(SETTLED, 2)


async def test_a_node_that_starts_anew_in_any_phase_goes_on_from_there(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as made:
        one, other = made.nodes
        made.run(one)
        await made.begin(one)
        await eventually(lambda: made.log.state.rotation.confirmed == (one.id,))
        again = Keyring(RingStore(one.slot, one.file, owned=True), one.key, ["127.0.0.1"])
        assert again.held == one.keyring.held
        assert again.identity.fingerprints == one.identity.fingerprints
        await made.log.propose(ExcuseNode(other.id), actor="test")
        await made.reaches(SETTLED, 2)
        once_more = Keyring(RingStore(one.slot, one.file, owned=True), one.key, ["127.0.0.1"])
        assert once_more.identity.fingerprints == {one.identity.fingerprint} != again.identity.fingerprints
        # The one that was left out comes back with the new file: it was replaced in a folder that both share.
        other.file.write_bytes(one.file.read_bytes())
        back = Keyring(RingStore(other.slot, other.file, owned=True), other.key, ["127.0.0.1"])
        assert back.identity.fingerprint == one.identity.fingerprint
