"""This node's own entry in the log: made when it joins, renewed when its addresses change; and its goodbye."""

import asyncio
import contextlib
import time
from collections.abc import Callable

from consensus.messages import JoinMember, NameCluster
from consensus.ports import CommandRejected, Log, LogError
from consensus.state import Member, MemberStatus
from node import logs
from node.joining.gate import MemberGate
from node.joining.joining import ClusterRecord
from node.peering.client import PeerClient
from node.peering.words import PeerError

CHECK_SECONDS = 2.0
PROPOSE_SECONDS = 5.0
GOODBYE_SECONDS = 10.0
"""How long a stopping node waits for the leader's word before it ends all the same."""
RETRY_SECONDS = 0.2

_log = logs.get("registration")


class Registration:
    """`run` it as a root task; cancel it before `say_goodbye`, or the node would register itself again."""

    def __init__(
        self, me: Member, record: ClusterRecord, log: Log, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._me = me
        self._record = record
        self._log = log
        self._clock = clock

    async def run(self) -> None:
        while True:
            begun = self._clock()
            try:
                await self._register()
            except CommandRejected as error:
                _log.error("node.not_admitted", reason=error.reason)
            except LogError as error:
                _log.info("node.not_registered_yet", reason=str(error))
            # One that has waited long for the log in vain, as at the start of many nodes, tries again soon.
            await asyncio.sleep(max(RETRY_SECONDS, CHECK_SECONDS - (self._clock() - begun)))

    async def _register(self) -> None:
        state = self._log.state
        if self._record.genesis == self._me.id and not state.cluster_id:
            named = NameCluster(self._record.cluster_id, self._record.name, self._record.formation)
            await self._log.propose(named, actor=self._me.name, timeout=PROPOSE_SECONDS)
        known = state.members.get(self._me.id)
        if known is None or self._differs(known):
            await self._log.propose(JoinMember(self._me), actor=self._me.name, timeout=PROPOSE_SECONDS)
            _log.info("node.registered", address=self._me.addresses[0])

    def _differs(self, known: Member) -> bool:
        """Whether the log does not say where this node is; that it drains is the operator's word, not ours."""
        here = (self._me.name, self._me.addresses, self._me.peer_port, self._me.raft_port, self._me.api_port)
        there = (known.name, known.addresses, known.peer_port, known.raft_port, known.api_port)
        return here != there or _abilities(self._me) != _abilities(known) or known.status is MemberStatus.AWAY


def _abilities(member: Member) -> tuple[object, ...]:
    return (member.cpus, member.cpus_given, member.machine, member.version, member.level)


async def say_goodbye(log: Log, gate: MemberGate, client: PeerClient) -> None:
    """Ask the leader (it may be us) for leave to stop, so that the vote is not missed."""
    deadline = time.monotonic() + GOODBYE_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        leader, me = log.status.leader, log.status.me
        granted = False
        with contextlib.suppress(PeerError, ValueError):
            if leader == me:
                granted = await gate.stopping(me, left)
            elif leader is not None:
                granted = await client.notify_stopping(leader, left)
        if granted:
            _log.info("node.may_stop", leader=leader)
            return
        await asyncio.sleep(RETRY_SECONDS)
    _log.warning("node.stops_unheard")
