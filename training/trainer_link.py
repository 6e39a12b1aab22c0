"""The trainer's side of the agent's Unix socket: a replica of the replicated state, commands, blobs, reports."""

import asyncio
import contextlib
import logging
import time
import uuid
from pathlib import Path

import msgspec

from consensus.codec import decode_entry, decode_state, encode_command
from consensus.messages import Command, HeldBlob, Rejected
from consensus.ports import CommandRejected
from consensus.rules.machine import apply
from consensus.state import ClusterState, Digest, NodeId
from parvada.local import (
    ACTOR_HEADER,
    COMMAND_HEADER,
    LIVE,
    LOG,
    MAX_LOG_BYTES,
    PROPOSE,
    TRAINER,
    EntryFrame,
    Proposed,
    StateFrame,
    StoredBlob,
    WireError,
    read_log_frame,
)
from parvada.local_calls import AgentAway, AgentRefused, AgentSocket, read_answer
from training.errors import EpochLost, TrainingError
from training.ports import LiveReport, TrainerReport

log = logging.getLogger(__name__)

_SILENCE_SECONDS = 30.0
"""Without a word of the agent for so long, this process is an orphan."""
_PROPOSE_SECONDS = 600.0
"""A cluster without quorum may come back; until then a result waits here."""
_CALL_SECONDS = 20.0
_REPORT_SECONDS = 5.0
_BLOB_SECONDS = 600.0
_RETRY_SECONDS = 0.2


def held(blob: StoredBlob) -> HeldBlob:
    """As the log has it."""
    return HeldBlob(Digest(blob.digest), blob.bytes, tuple(map(NodeId, blob.holders)))


class TrainerLink:
    """One connection pool to the agent at `socket`. `changed` is set whenever the replica moved on."""

    def __init__(self, socket: str) -> None:
        self._agent = AgentSocket(socket)
        self._heard = 0.0
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
        self._reader = asyncio.create_task(self._follow(), name="agent-log")
        await self.wait_applied(0, _SILENCE_SECONDS)

    async def stop(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait([self._reader], timeout=5)
        await self._agent.close()

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
        headers = {COMMAND_HEADER: uuid.uuid4().hex, ACTOR_HEADER: "trainer"}
        body = encode_command(command)
        give_up = time.monotonic() + _PROPOSE_SECONDS
        while time.monotonic() < give_up:
            try:
                answer = await self._agent.call("POST", PROPOSE, body, seconds=_CALL_SECONDS, headers=headers)
                proposed = read_answer(answer, Proposed)
            except AgentRefused as refused:
                if refused.status < 500:
                    raise CommandRejected(Rejected(refused.code, refused.reason)) from refused
            except AgentAway as away:
                log.debug("command.repeated: %s", away)
            else:
                await self.wait_applied(proposed.index, _SILENCE_SECONDS)
                return proposed
            await asyncio.sleep(_RETRY_SECONDS)
        raise EpochLost(f"{type(command).__name__} was not committed within {_PROPOSE_SECONDS:g} s")

    async def blob(self, digest: Digest) -> Path:
        """The local file of a blob, fetched from another node if need be. Raises TrainingError: no node has it."""
        try:
            return Path((await self._agent.blob(digest, _BLOB_SECONDS)).path)
        except (AgentAway, AgentRefused) as error:
            raise TrainingError(f"blob {digest}: {error}") from error

    async def store(self, path: Path) -> HeldBlob:
        """Move the file at `path` into the blob store; returns when it is durable on two nodes.
        Raises TrainingError: it could not be stored."""
        try:
            stored = await self._agent.store(path, _BLOB_SECONDS)
        except (AgentAway, AgentRefused) as error:
            raise TrainingError(f"{path.name} was not stored: {error}") from error
        return held(stored)

    async def report(self, report: TrainerReport) -> None:
        """A report that does not arrive is followed by another in a second."""
        await self._tell(TRAINER, report)

    async def report_live(self, report: LiveReport) -> None:
        """One that does not arrive is lost."""
        await self._tell(LIVE, report)

    async def _tell(self, path: str, report: msgspec.Struct) -> None:
        with contextlib.suppress(AgentAway, AgentRefused):
            await self._agent.call("POST", path, msgspec.msgpack.encode(report), seconds=_REPORT_SECONDS)

    # ---------------------------------------------------------------- the replica
    async def _follow(self) -> None:
        """Read the log for ever; ends with an error when the agent is silent for too long."""
        told = ""
        self._heard = time.monotonic()
        while time.monotonic() - self._heard < _SILENCE_SECONDS:
            try:
                await self._read_stream()
                self._heard = time.monotonic()
            except (AgentAway, AgentRefused) as error:
                if str(error) != told:
                    told = str(error)
                    log.warning("agent.log_broken: %s", told)
            await asyncio.sleep(_RETRY_SECONDS)
        raise EpochLost(f"the agent was silent for {_SILENCE_SECONDS:g} s")

    async def _read_stream(self) -> None:
        """One connection until it ends: a snapshot, then entries. It ends when this reader lagged, too."""
        async with contextlib.aclosing(self._agent.frames(LOG, MAX_LOG_BYTES)) as frames:
            async for body in frames:
                self._heard = time.monotonic()
                await self._take(read_log_frame(body))

    async def _take(self, item: StateFrame | EntryFrame) -> None:
        if isinstance(item, StateFrame):
            state = decode_state(item.state)
        elif self._state is None:
            raise WireError("the agent's log began with an entry")
        elif item.index <= self._state.index:
            return
        else:
            state = apply(self._state, item.index, decode_entry(item.entry)).state
        async with self._advanced:
            self._state = state
            self.changed.set()
            self._advanced.notify_all()
