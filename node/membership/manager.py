"""The leader's manager of voters and learners, and the notices of nodes that are about to stop.

The rules are in `node.membership.voters`; here they meet the log. Runs on every node, acts only on the leader.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping

from consensus.levels import LEVEL, common_level
from consensus.messages import RaiseLevel, SetMemberStatus
from consensus.ports import CommandRejected, Log, LogError, LogStatus
from consensus.state import ClusterState, MemberStatus, NodeId
from node import logs
from node.membership import voters
from node.membership.voters import AddVoter, Change, Limits, Mark, RemoveVoter, Seen, Transfer, View

GATHER_SECONDS = 1.0
"""A leader waits this long for further notices of stopping before it acts on the first."""
CAUGHT_UP_ENTRIES = 100
TICK_SECONDS = 0.5
NOTICE_SECONDS = 30.0
"""A notice is forgotten after this, or as soon as its node has gone and come back."""
SETTLE_SECONDS = 3.0
"""A new leader waits this long before it takes a surplus vote: nodes that stop tell it by then, and lose theirs."""
TRANSFER_SECONDS = 1.5
"""For another leader to take over; until then, or until it is given up, all writes are held back."""
TRANSFER_PAUSE_SECONDS = 5.0
"""After a transfer that failed, so that writes get through; the next goes to another voter, if there is one."""

_log = logs.get("membership")


class Membership:
    """Watches members and keeps the voters as `node.membership.voters` says."""

    def __init__(
        self, log: Log, limits: Limits, clock: Callable[[], float] = time.monotonic, level: int = LEVEL
    ) -> None:
        self._log = log
        self._level = level
        self._limits = limits
        self._clock = clock
        self._notices: dict[NodeId, float] = {}
        self._stopped: set[NodeId] = set()
        """Of those with a notice: whose connection has gone since."""
        self._leaving: dict[NodeId, float] = {}
        self._last_seen: dict[NodeId, float] = {}
        self._caught_up_since: dict[NodeId, float] = {}
        self._leads_since: float | None = None
        self._no_transfer_before = -math.inf
        self._wake = asyncio.Event()

    async def run(self) -> None:
        while True:
            change = self._next_change()
            if change is not None and await self._carry_out(change):
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05 if self._notices or self._leaving else TICK_SECONDS):
                    await self._wake.wait()

    def seen_ages(self) -> Mapping[NodeId, float]:
        """Seconds since each member was last connected to this node."""
        now = self._clock()
        return {node: now - at for node, at in self._last_seen.items()}

    async def stopping(self, node: NodeId, timeout: float) -> bool:
        """A member says that it is about to stop. Returns when it may: True when its vote has gone or is not
        missed (`voters.may_stop`), or every voter is stopping; False when this node is not the leader or time is up."""
        self._notices[node] = self._clock()

        def done(status: LogStatus) -> bool:
            gathered = self._clock() - self._notices.get(node, self._clock()) >= GATHER_SECONDS
            if not gathered or self._nobody_stays(status):
                return gathered
            self._observe(status, self._log.state)
            return voters.may_stop(self._view(status, self._log.state), node)

        status = await self._lead_until(done, timeout)
        return status is not None and (self._nobody_stays(status) or await self._note_away(node))

    async def retire(self, node: NodeId, timeout: float) -> bool:
        """A member is about to be removed: take its vote away, in the order that keeps a majority alive, and give it
        none again meanwhile. False when this node is not the leader (any more) or time is up."""
        self._leaving[node] = self._clock()
        return await self._lead_until(lambda status: node not in status.voters, timeout) is not None

    async def _lead_until(self, reached: Callable[[LogStatus], bool], timeout: float) -> LogStatus | None:
        """Let the manager act until `reached`: the status for which it was so. None when this node is not the leader
        (any more) or time is up."""
        self._wake.set()
        deadline = self._clock() + timeout
        while self._clock() < deadline:
            status = self._log.status
            if status.leader != status.me:
                return None
            if reached(status):
                return status
            await asyncio.sleep(0.05)
        return None

    async def _note_away(self, node: NodeId) -> bool:
        """At once: its share of blobs and work moves without the wait for a lost node. False when the log did not take
        it, as while leadership is handed over: then it is the next leader's to let the node go."""
        member = self._log.state.members.get(node)
        if member is None or member.status is not MemberStatus.ACTIVE:
            return True
        return await self._carry_out(Mark(node, MemberStatus.AWAY))

    def _nobody_stays(self, status: LogStatus) -> bool:
        """No healthy member will be left: keep the configuration, so that any majority may come back."""
        alive = {node for node in self._log.state.members if node in status.connected or node == status.me}
        return alive <= self._notices.keys()

    def _next_change(self) -> Change | RaiseLevel | None:
        status, state = self._log.status, self._log.state
        self._observe(status, state)
        if status.leader != status.me or not status.quorum:
            return None
        change = voters.next_change(self._view(status, state), self._limits) or self._raise_level(status, state)
        return None if isinstance(change, Transfer) and self._clock() < self._no_transfer_before else change

    def _raise_level(self, status: LogStatus, state: ClusterState) -> RaiseLevel | None:
        """Once the last member runs a newer release, what it brings may be used; nobody goes back from there. One that
        has just gone, or is silent, may be about to come back with an older release: it is waited for."""
        level = min(common_level(state), self._level)
        here, now = {*status.connected, status.me} - status.silent, self._clock()
        missed = [node for node in state.members if node not in here]
        if level == state.level or any(now - self._last_seen[node] < self._limits.away_after for node in missed):
            return None
        return RaiseLevel(level)

    def _observe(self, status: LogStatus, state: ClusterState) -> None:
        now = self._clock()
        here = {*status.connected, status.me}
        if status.leader != status.me:
            self._leads_since = None
        elif self._leads_since is None:
            self._leads_since = now
        for node in state.members:
            if node in here:
                self._last_seen[node] = now
            else:
                self._last_seen.setdefault(node, now)
            if status.lag.get(node, CAUGHT_UP_ENTRIES) < CAUGHT_UP_ENTRIES and node in status.connected:
                self._caught_up_since.setdefault(node, now)
            else:
                self._caught_up_since.pop(node, None)
        for told in (self._notices, self._leaving):
            for node in [node for node, at in told.items() if now - at > NOTICE_SECONDS]:
                del told[node]
        for node in self._stopped & here:
            self._notices.pop(node, None)  # it has been started again
        self._stopped = self._notices.keys() - here
        for known in (self._last_seen, self._caught_up_since, self._leaving):
            for node in known.keys() - state.members.keys():
                del known[node]  # removed for good

    def _view(self, status: LogStatus, state: ClusterState) -> View:
        now = self._clock()
        gathering = any(now - at < GATHER_SECONDS for at in self._notices.values())
        members = {
            node: Seen(
                status=member.status,
                connected=node in status.connected or node == status.me,
                unseen_for=now - self._last_seen[node],
                caught_up_for=now - self._caught_up_since.get(node, now),
                answers=node not in status.silent,
            )
            for node, member in state.members.items()
        }
        return View(
            me=status.me,
            voters=frozenset(status.voters),
            members=members,
            settled=self._leads_since is not None and now - self._leads_since >= SETTLE_SECONDS,
            stopping=frozenset() if gathering else frozenset(self._notices),
            leaving=frozenset(self._leaving),
        )

    async def _hand_over(self, node: NodeId) -> None:
        try:
            await self._log.transfer_leadership(node, TRANSFER_SECONDS)
        except LogError:
            now = self._clock()
            self._no_transfer_before, self._caught_up_since[node] = now + TRANSFER_PAUSE_SECONDS, now
            raise

    async def _carry_out(self, change: Change | RaiseLevel) -> bool:
        """Returns whether something changed; a refused change is tried again at the next tick."""
        try:
            match change:
                case AddVoter(node):
                    await self._log.add_voter(node)
                case RemoveVoter(node):
                    await self._log.remove_voter(node)
                case Transfer(node):
                    await self._hand_over(node)
                case RaiseLevel():
                    await self._log.propose(change, actor="leader", timeout=3.0)
                case Mark(node, status):
                    await self._log.propose(SetMemberStatus(node, status), actor="leader", timeout=3.0)
        except CommandRejected as error:
            _log.warning("membership.rejected", change=repr(change), reason=error.reason)
            return False
        except LogError as error:
            _log.info("membership.postponed", change=repr(change), reason=str(error))
            return False
        _log.info("membership.changed", change=repr(change))
        return True
