"""Real logs in one process: three threads, real sockets on loopback, real certificates, real files."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from consensus.core.base import Timers
from consensus.core.compaction import CompactionRule
from consensus.log.raft import RaftConfig, RaftLog
from consensus.messages import CreateToken
from consensus.ports import Committed, MembershipRefused, NoQuorum, PeerAddress
from consensus.state import ClusterState, CommandId, NodeId, Role
from node.identity.pki import Authority, Identity, NodeKey

AUTHORITY = Authority.from_secret(b"a secret of 32 bytes, for tests!")
STRANGERS = Authority.from_secret(b"another secret of 32 bytes, too!")
CLUSTER = "c0ffee"
TIMERS = Timers()


def identity(authority: Authority = AUTHORITY) -> Identity:
    return Identity(authority, NodeKey.generate(), ["127.0.0.1"])


async def eventually(what: str, probe: Callable[[], object], seconds: float = 20.0) -> None:
    """Poll until `probe` is true. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        await asyncio.to_thread(time.sleep, 0.005)  # also where a test holds the time of its loop


class Cluster:
    """Logs by name. A stopped one keeps its folder and comes back with another port."""

    def __init__(self, folder: Path, names: str, rule: CompactionRule, timers: Timers = TIMERS) -> None:
        self._folder, self._rule, self._timers = folder, rule, timers
        self.identities = {name: identity() for name in names}
        self.genesis = self.identities[names[0]].id
        self.logs: dict[str, RaftLog] = {}
        self.crashes: list[BaseException] = []
        self._ports: dict[NodeId, PeerAddress] = {}

    def id(self, name: str) -> NodeId:
        return self.identities[name].id

    def make(self, name: str) -> RaftLog:
        mine = self.identities[name]
        config = RaftConfig(
            mine.id,
            CLUSTER,
            self.genesis,
            self._folder / name,
            "127.0.0.1",
            0,
            compaction=self._rule,
            timers=self._timers,
        )
        return RaftLog(
            config, mine.server_context(), mine.client_context(), mine.identify, ClusterState(), self.crashes.append
        )

    async def start(self, name: str) -> RaftLog:
        log = self.logs[name] = self.make(name)
        await log.start()
        self._ports[self.id(name)] = PeerAddress(("127.0.0.1",), log.port)
        self.share_table()
        return log

    def share_table(self) -> None:
        for log in self.logs.values():
            log.set_peers(self._ports)

    async def stop(self, name: str) -> None:
        await self.logs.pop(name).stop()

    def leader(self) -> str | None:
        leading = [name for name, log in self.logs.items() if log.status.leader == self.id(name)]
        return leading[0] if len(leading) == 1 else None

    def leads(self, name: str) -> bool:
        return self.leader() == name

    async def wait_for_leader(self) -> str:
        await eventually("a leader", self.leader)
        leader = self.leader()
        assert leader is not None
        return leader

    async def promote(self, name: str) -> None:
        async def attempt() -> None:
            leader = self.logs[await self.wait_for_leader()]
            if self.id(name) not in leader.status.voters:
                await leader.add_voter(self.id(name))

        await persist(attempt)

    async def put(self, via: str, key: str, command_id: str | None = None) -> Committed:
        return await self.logs[via].propose(token(key), actor="test", command_id=CommandId(command_id or f"id-{key}"))

    async def agree(self) -> None:
        """Every log has the same state."""
        await eventually("equal states", lambda: len({log.state.index for log in self.logs.values()}) == 1)
        states = {tuple(sorted(log.state.tokens)) for log in self.logs.values()}
        assert len(states) == 1


def token(key: str) -> CreateToken:
    """A small command that leaves a trace: `state.tokens[key]`."""
    return CreateToken(token=key, name=key, role=Role.VIEWER, sha256=f"{abs(hash(key)):064x}"[:64])


async def persist(attempt: Callable[[], Awaitable[None]], seconds: float = 20.0) -> None:
    """Try again what depends on who leads just now."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            await attempt()
        except (MembershipRefused, NoQuorum):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)
        else:
            return


@asynccontextmanager
async def cluster(
    folder: Path, names: str = "abc", rule: CompactionRule | None = None, timers: Timers = TIMERS
) -> AsyncIterator[Cluster]:
    """Started logs, the first of them genesis, all of them voters."""
    made = Cluster(folder, names, rule or CompactionRule(), timers)
    try:
        for name in names:
            await made.start(name)
        for name in names[1:]:
            await made.promote(name)
        yield made
    finally:
        for name in list(made.logs):
            await made.stop(name)
    assert made.crashes == []
