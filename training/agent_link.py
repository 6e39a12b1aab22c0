"""The trainer's side of the agent's Unix socket: a replica of the replicated state, commands, blobs, reports."""

import asyncio
import contextlib
import logging
import time
import uuid
from pathlib import Path

import aiohttp
import msgspec

from consensus.codec import decode_entry, decode_state, encode_command
from consensus.messages import Command, Rejected
from consensus.ports import CommandRejected
from consensus.rules.machine import apply
from consensus.state import ClusterState, Digest, NodeId
from training.errors import EpochLost, TrainingError
from training.ports import TrainerReport

log = logging.getLogger(__name__)

_SNAPSHOT, _ENTRY = 0, 1
_MAX_FRAME = 1 << 30
_SILENCE_SECONDS = 30.0
"""Without a word of the agent for so long, this process is an orphan."""
_PROPOSE_SECONDS = 600.0
"""A cluster without quorum may come back; until then a result waits here."""
_CALL_SECONDS = 20.0
_BLOB_SECONDS = 600.0
_RETRY_SECONDS = 0.2


class Proposed(msgspec.Struct, frozen=True):
    """Answer of `POST /local/propose`."""

    index: int
    value: dict[str, int | bool | str | None] | None = None


class StoredBlob(msgspec.Struct, frozen=True):
    """Answer of `POST /local/blobs`."""

    digest: Digest
    bytes: int
    holders: tuple[NodeId, ...]


class _LocalBlob(msgspec.Struct, frozen=True):
    path: str
    bytes: int


class _Refusal(msgspec.Struct, frozen=True):
    code: str = "invalid"
    error: str = ""


class AgentLink:
    """One connection pool to the agent at `socket`. `changed` is set whenever the replica moved on."""

    def __init__(self, socket: str) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self._reader: asyncio.Task[None] | None = None
        self._state: ClusterState | None = None
        self._advanced = asyncio.Condition()
        self.changed = asyncio.Event()

    @property
    def state(self) -> ClusterState:
        if self._state is None:
            raise EpochLost("the agent has not sent its state yet")
        return self._state

    async def start(self) -> None:
        """Returns when the first state is here. Raises EpochLost: the agent does not answer."""
        connector = aiohttp.UnixConnector(self._socket, limit=0)
        self._session = aiohttp.ClientSession("http://agent", connector=connector)
        self._reader = asyncio.create_task(self._follow(), name="agent-log")
        await self.wait_applied(0, _SILENCE_SECONDS)

    async def stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader], timeout=5)
        if self._session is not None:
            await self._session.close()

    def check(self) -> None:
        """Raises EpochLost when the agent has been silent for too long."""
        if self._reader is not None and self._reader.done():
            error = None if self._reader.cancelled() else self._reader.exception()
            raise EpochLost(f"the agent is gone: {error}") from error

    async def wait_applied(self, index: int, timeout: float) -> None:
        """Wait until the replica has reached `index`. Raises EpochLost after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout), self._advanced:
                await self._advanced.wait_for(lambda: self._state is not None and self._state.index >= index)
        except TimeoutError:
            raise EpochLost(f"the agent's log did not reach index {index} within {timeout:g} s") from None

    async def propose(self, command: Command) -> Proposed:
        """Commit `command` and wait until this replica shows it. Repeats under one id while there is no quorum.

        Raises:
            CommandRejected: the rules refused it.
            EpochLost: not committed within ten minutes.
        """
        headers = {"x-command-id": uuid.uuid4().hex, "x-actor": "trainer"}
        body = encode_command(command)
        give_up = time.monotonic() + _PROPOSE_SECONDS
        while time.monotonic() < give_up:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                async with self._http.post(
                    "/local/propose", data=body, headers=headers, timeout=aiohttp.ClientTimeout(_CALL_SECONDS)
                ) as answer:
                    content = await answer.read()
                    if answer.status == 200:
                        proposed = msgspec.json.decode(content, type=Proposed)
                        await self.wait_applied(proposed.index, _SILENCE_SECONDS)
                        return proposed
                    if answer.status < 500:
                        refusal = msgspec.json.decode(content, type=_Refusal)
                        raise CommandRejected(Rejected(refusal.code, refusal.error))
            await asyncio.sleep(_RETRY_SECONDS)
        raise EpochLost(f"{type(command).__name__} was not committed within {_PROPOSE_SECONDS:g} s")

    async def blob(self, digest: Digest) -> Path:
        """The local file of a blob, fetched from another node if need be. Raises TrainingError: no node has it."""
        content = await self._blob_call("GET", f"/local/blobs/{digest}")
        return Path(msgspec.json.decode(content, type=_LocalBlob).path)

    async def store(self, path: Path) -> StoredBlob:
        """Move the file at `path` into the blob store; returns when it is durable on two nodes.
        Raises TrainingError: it could not be stored."""
        content = await self._blob_call("POST", "/local/blobs", {"path": str(path)})
        return msgspec.json.decode(content, type=StoredBlob)

    async def _blob_call(self, method: str, path: str, body: dict[str, str] | None = None) -> bytes:
        timeout = aiohttp.ClientTimeout(_BLOB_SECONDS)
        try:
            async with self._http.request(method, path, json=body, timeout=timeout) as answer:
                content = await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TrainingError(f"{method} {path}: {error}") from error
        if answer.status != 200:
            reason = msgspec.json.decode(content, type=_Refusal).error if content.startswith(b"{") else ""
            raise TrainingError(f"{method} {path}: {answer.status} {reason}")
        return content

    async def report(self, report: TrainerReport) -> None:
        """A report that does not arrive is followed by another in a second."""
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._http.post(
                "/local/trainer", data=msgspec.msgpack.encode(report), timeout=aiohttp.ClientTimeout(5)
            ) as answer:
                await answer.read()

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise EpochLost("the link to the agent is not open")
        return self._session

    # ---------------------------------------------------------------- the replica
    async def _follow(self) -> None:
        """Read the log for ever; ends with an error when the agent is silent for too long."""
        heard, told = time.monotonic(), ""
        while time.monotonic() - heard < _SILENCE_SECONDS:
            try:
                await self._read_stream()
                heard = time.monotonic()
            except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("agent.log_broken: %s", told)
            await asyncio.sleep(_RETRY_SECONDS)
        raise EpochLost(f"the agent was silent for {_SILENCE_SECONDS:g} s")

    async def _read_stream(self) -> None:
        """One connection until it ends: a snapshot, then entries. It ends when this reader lagged, too."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CALL_SECONDS)
        async with self._http.get("/local/log", timeout=timeout) as answer:
            answer.raise_for_status()
            while True:
                try:
                    head = await answer.content.readexactly(4)
                except asyncio.IncompleteReadError:
                    return
                length = int.from_bytes(head)
                if not 1 <= length <= _MAX_FRAME:
                    raise TrainingError(f"the agent's log has a frame of {length} bytes")
                await self._take(await answer.content.readexactly(length))

    async def _take(self, body: bytes) -> None:
        if body[0] == _SNAPSHOT:
            state = decode_state(body[1:])
        elif body[0] == _ENTRY and self._state is not None:
            index = int.from_bytes(body[1:9])
            if index <= self._state.index:
                return
            state = apply(self._state, index, decode_entry(body[9:])).state
        else:
            raise TrainingError(f"the agent's log has a frame of unknown type {body[0]}")
        async with self._advanced:
            self._state = state
            self.changed.set()
            self._advanced.notify_all()
