"""One node's `RaftLog` alone in a process, driven by lines of JSON: what `benchmarks.log_cluster` starts.

Only the log: no agent, no HTTP, no front. So its figures are those of consensus, journal and transport.
"""

import asyncio
import gc
import hashlib
import os
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from consensus.log.raft import RaftConfig, RaftLog
from consensus.messages import AddDatasetVersion, CreateToken, HeldBlob, JoinMember, RevokeToken
from consensus.ports import LogError, PeerAddress
from consensus.state import ClusterState, Digest, Json, Member, NodeId, Part, Role
from node import interpreter
from node.identity.pki import Authority, Identity, NodeKey

SECRET = b"thirty-two bytes for a benchmark"
DETAIL_BYTES = 8192
FILL_IN_FLIGHT = 64


class Start(msgspec.Struct, frozen=True):
    """The process's one argument. `ports` names every node's."""

    directory: str
    me: NodeId
    genesis: NodeId
    ports: dict[NodeId, int]

    @property
    def folder(self) -> Path:
        return Path(self.directory)


class Ask(msgspec.Struct, frozen=True):
    """One line in."""

    do: str
    node: NodeId = NodeId("")
    in_flight: int = 1
    seconds: float = 1.0
    bytes: int = 0


class Reply(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line out."""

    leader: str = ""
    voters: tuple[str, ...] = ()
    at: float = 0.0
    """CLOCK_MONOTONIC, the same in all processes of a machine."""
    writes: int = 0
    seconds: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    digest: str = ""
    error: str = ""
    tokens: int = 0


def identity_of(folder: Path) -> NodeKey:
    return NodeKey.load_or_make(folder / "key.pem")


class LogNode:
    """Answers `Ask`s."""

    def __init__(self, start: Start, log: RaftLog) -> None:
        self._me, self._log = start.me, log
        self._loads = 0

    async def answer(self, ask: Ask) -> Reply:
        doing: dict[str, Callable[[Ask], Awaitable[Reply]]] = {
            "status": self._status,
            "promote": self._promote,
            "load": self._load,
            "fill": self._fill,
            "await_leader": self._await_leader,
        }
        try:
            return await doing[ask.do](ask)
        except LogError as error:
            return Reply(error=f"{type(error).__name__}: {error}")

    async def _status(self, ask: Ask) -> Reply:
        status = self._log.status
        return Reply(
            leader=status.leader or "",
            voters=status.voters,
            at=time.monotonic(),
            writes=status.applied_index,
            tokens=len(self._log.state.tokens),
        )

    async def _promote(self, ask: Ask) -> Reply:
        await self._log.add_voter(ask.node)
        return await self._status(ask)

    async def _load(self, ask: Ask) -> Reply:
        """Writers that each wait for their own write, as `ask.in_flight` callers of the API would."""
        self._loads += 1
        begun, took = time.monotonic(), list[float]()
        writers = (self._write(f"{self._loads}-{each}", begun + ask.seconds, took) for each in range(ask.in_flight))
        await asyncio.gather(*writers)
        seconds = time.monotonic() - begun
        took.sort()
        return Reply(writes=len(took), seconds=seconds, p50=took[len(took) // 2], p99=took[len(took) * 99 // 100])

    async def _write(self, writer: str, until: float, took: list[float]) -> None:
        """A token made and revoked, in turn: every write changes the state, which stays as small as it was."""
        token = f"{self._me[:8]}-{writer}"
        while (before := time.monotonic()) < until:
            sha256 = hashlib.sha256(token.encode()).hexdigest()
            await self._log.propose(CreateToken(token, token, Role.VIEWER, sha256), actor="bench")
            middle = time.monotonic()
            await self._log.propose(RevokeToken(token), actor="bench")
            took += [middle - before, time.monotonic() - middle]

    async def _fill(self, ask: Ask) -> Reply:
        """Dataset versions until the state has about `ask.bytes`."""
        numbers = iter(range(ask.bytes // DETAIL_BYTES))
        me = Member(self._me, "bench", ("127.0.0.1",), 1, 2, 3, 1, "1.0.0", 0.0)
        await self._log.propose(JoinMember(me), actor="bench")

        async def one() -> None:
            for number in numbers:
                digest = Digest(hashlib.sha256(f"{number}".encode()).hexdigest())
                detail = Json(b'{"columns":"' + os.urandom(DETAIL_BYTES // 2).hex().encode() + b'"}')
                held = (HeldBlob(digest, 1000, (self._me,)),)
                parts = (Part(digest, 10, 1000),)
                name = f"set-{number % 100}"
                made = AddDatasetVersion(name, digest, 10, 1000, parts, "y", "binary", detail, held)
                await self._log.propose(made, actor="bench")

        await asyncio.gather(*(one() for _ in range(FILL_IN_FLIGHT)))
        return await self._status(ask)

    async def _await_leader(self, ask: Ask) -> Reply:
        """When this node sees another leader than `ask.node`, looked for each millisecond."""
        deadline = time.monotonic() + ask.seconds
        while time.monotonic() < deadline:
            status = self._log.status
            if status.leader not in (None, ask.node) and status.quorum:
                return await self._status(ask)
            await asyncio.sleep(0.001)
        return Reply(error="no new leader")


async def run(start: Start) -> None:
    identity = Identity(Authority.from_secret(SECRET), identity_of(start.folder), ["127.0.0.1"])
    config = RaftConfig(start.me, "c0ffee", start.genesis, start.folder / "raft", "127.0.0.1", start.ports[start.me])
    log = RaftLog(config, identity.server_context(), identity.client_context(), identity.identify, ClusterState())
    begun = time.monotonic()
    await log.start()
    log.set_peers({node: PeerAddress(("127.0.0.1",), port) for node, port in start.ports.items()})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    _say(Reply(seconds=time.monotonic() - begun))
    node = LogNode(start, log)
    while line := await reader.readline():
        _say(await node.answer(msgspec.json.decode(line, type=Ask)))
    await log.stop()


def _say(reply: Reply) -> None:
    sys.stdout.write(msgspec.json.encode(reply).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    gc.freeze()  # as `parvada._startup` for the agent
    interpreter.tune()
    asyncio.run(run(msgspec.json.decode(sys.argv[1], type=Start)))
