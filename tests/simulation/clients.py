"""Clients: each command is tried at one node, and under the same id at others, until one of them answers."""

import random
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from consensus.levels import stamped
from consensus.messages import (
    Accepted,
    AddDatasetVersion,
    Command,
    CreateToken,
    Entry,
    HeldBlob,
    JoinMember,
    RevokeToken,
)
from consensus.ports import CommandRejected
from consensus.queries import outcome_of, remembered
from consensus.state import ClusterState, CommandId, Digest, Json, Member, NodeId, Part, Role
from tests.simulation.checks import Violation
from tests.simulation.training import SimTrainer

if TYPE_CHECKING:
    from tests.simulation.world import World

_PATIENCE = 1.5
"""Seconds until a client turns to another node as well."""

TRAINER = "t"
"""How the ids of the trainer's commands begin: of them the log may refuse some, as the state has moved on."""
_JOIN = CommandId("join")


class _Call:
    def __init__(self, entry: Entry, floor: int, retry_at: float) -> None:
        self.entry, self.floor, self.retry_at = entry, floor, retry_at


class Clients:
    """Knows which commands wait for an answer and which have one."""

    def __init__(self, world: "World", rng: random.Random, trainer: SimTrainer, *, big: bool) -> None:
        self._world, self._rng, self._big = world, rng, big
        self.trainer = trainer
        self._waiting: dict[CommandId, _Call] = {}
        self._made = 0
        self._newest = 0
        """Index of the newest command that was answered."""
        self.acknowledged: set[CommandId] = set()
        self._tokens: list[str] = []
        """Acknowledged and not revoked."""

    @property
    def joined(self) -> bool:
        return _JOIN in self.acknowledged

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def put(self, via: str) -> CommandId:
        """A new command at one node. Its time is what that node's wall clock happens to say."""
        self._made += 1
        command = self.trainer.command(self._world.servers[via].machine.state) if self._made % 2 else None
        if command is not None:
            self._call(via, CommandId(f"{TRAINER}{self._made}"), command, 1000.0 + self._made)
        return self._call(via, CommandId(f"w{self._made}"), self._command())

    def join(self, via: str) -> None:
        """What the datasets need to be there first: a member that is said to hold their bytes."""
        me = self._world.genesis
        level = self._world.levels[me]
        self._call(via, _JOIN, JoinMember(Member(NodeId(me), me, ("10.0.0.1",), 1, 2, 3, 1, "0.1", 0.0, level=level)))

    def _call(self, via: str, command_id: CommandId, command: Command, at: float | None = None) -> CommandId:
        entry = stamped(command_id, self._rng.uniform(-1e9, 1e10) if at is None else at, "client", command)
        self._waiting[command_id] = _Call(entry, self._newest, self._world.clock.now + _PATIENCE)
        try:
            self._world.servers[via].propose(entry)
        except CommandRejected:
            del self._waiting[command_id]
        return command_id

    def _command(self) -> Command:
        number = self._made
        digest = f"{number:064x}"
        if self._world.minds and self._tokens and self._rng.random() < 0.2:
            return RevokeToken(self._tokens.pop(self._rng.randrange(len(self._tokens))))
        if self._rng.random() < 0.5:
            return CreateToken(f"t{number}", f"t{number}", Role.VIEWER, digest)
        padding = "x" * self._rng.choice((10, 30_000)) if self._big else ""
        detail = Json(msgspec.json.encode({"note": padding}))
        part = Part(Digest(digest), 10, 100)
        held = (HeldBlob(part.digest, part.bytes, (NodeId(self._world.genesis),)),)
        name = f"d{self._rng.randint(1, 3)}"
        return AddDatasetVersion(name, Digest(f"{number + 10**9:064x}"), 10, 120, (part,), "y", "binary", detail, held)

    def retry(self) -> None:
        """Who waits for too long asks another node."""
        alive, now = sorted(self._world.servers), self._world.clock.now
        for call in list(self._waiting.values()):
            if alive and call.retry_at <= now:
                call.retry_at = now + _PATIENCE
                # A node that lags may not know yet that its level is in force.
                with suppress(CommandRejected):
                    self._world.servers[self._rng.choice(alive)].propose(call.entry)

    def answered(self, command_id: CommandId, state: ClusterState) -> None:
        """Raises Violation if the answer is wrong, or if it was decided before it was asked."""
        if command_id.startswith(TRAINER):
            self._world.reference.check_trained(command_id, state)
        else:
            self._world.reference.check_outcome(command_id, state)
        call = self._waiting.pop(command_id, None)
        if call is None:
            return
        index = remembered(state, command_id).index
        if index <= call.floor:
            raise Violation(f"{command_id} has entry {index}, but entry {call.floor} was answered before it was asked")
        self._newest = max(self._newest, index)
        self.acknowledged.add(command_id)
        self.trainer.answered(call.entry.command, isinstance(outcome_of(remembered(state, command_id)), Accepted))
        if isinstance(call.entry.command, CreateToken):
            self._tokens.append(call.entry.command.token)
