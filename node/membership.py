"""The leader's manager of voters and learners, and the notices of nodes that are about to stop.

The rules are in `node.voters`; here they meet the log. Runs on every node, acts only on the leader.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping

from consensus.messages import SetMemberStatus
from consensus.ports import CommandRejected, Log, LogError, LogStatus
from consensus.state import ClusterState, MemberStatus, NodeId
from node import logs, voters
from node.voters import AddVoter, Change, Limits, Mark, RemoveVoter, Seen, Transfer, View

GATHER_SECONDS = 1.0
"""A leader waits this long for further notices of stopping before it acts on the first."""
CAUGHT_UP_ENTRIES = 100
TICK_SECONDS = 0.5
NOTICE_SECONDS = 30.0
"""A notice is forgotten after this: the node has stopped, or has changed its mind."""

_log = logs.get("membership")


class Membership:
    """Watches members and keeps the voters as `node.voters` says."""

    def __init__(self, log: Log, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._limits = limits
        self._clock = clock
        self._notices: dict[NodeId, float] = {}
        self._last_seen: dict[NodeId, float] = {}
        self._caught_up_since: dict[NodeId, float] = {}
        self._wake = asyncio.Event()

    async def run(self) -> None:
        while True:
            change = self._next_change()
            if change is not None and await self._carry_out(change):
                continue
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05 if self._notices else TICK_SECONDS):
                    await self._wake.wait()

    def seen_ages(self) -> Mapping[NodeId, float]:
        """Seconds since each member was last connected to this node."""
        now = self._clock()
        return {node: now - at for node, at in self._last_seen.items()}

    async def stopping(self, node: NodeId, timeout: float) -> bool:
        """A member says that it is about to stop. Returns when it may: True when it is no voter any more, or
        every voter is stopping; False when this node is not the leader or time is up."""
        self._notices[node] = self._clock()
        self._wake.set()
        deadline = self._clock() + timeout
        while self._clock() < deadline:
            status = self._log.status
            if status.leader != status.me:
                return False
            gathered = self._clock() - self._notices.get(node, self._clock()) >= GATHER_SECONDS
            if gathered and self._nobody_stays(status):
                return True
            if gathered and node not in status.voters:
                # It is away at once: its share of blobs and work moves without the wait for a lost node.
                await self._carry_out(Mark(node, MemberStatus.AWAY))
                return True
            await asyncio.sleep(0.05)
        return False

    def _nobody_stays(self, status: LogStatus) -> bool:
        """No healthy member will be left: keep the configuration, so that any majority may come back."""
        alive = {node for node in self._log.state.members if node in status.connected or node == status.me}
        return alive <= self._notices.keys()

    def _next_change(self) -> Change | None:
        status, state = self._log.status, self._log.state
        self._observe(status, state)
        if status.leader != status.me or not status.quorum:
            return None
        return voters.next_change(self._view(status, state), self._limits)

    def _observe(self, status: LogStatus, state: ClusterState) -> None:
        now = self._clock()
        for node in state.members:
            if node in status.connected or node == status.me:
                self._last_seen[node] = now
            else:
                self._last_seen.setdefault(node, now)
            if status.lag.get(node, CAUGHT_UP_ENTRIES) < CAUGHT_UP_ENTRIES and node in status.connected:
                self._caught_up_since.setdefault(node, now)
            else:
                self._caught_up_since.pop(node, None)
        for node in [node for node, at in self._notices.items() if now - at > NOTICE_SECONDS]:
            del self._notices[node]

    def _view(self, status: LogStatus, state: ClusterState) -> View:
        now = self._clock()
        gathering = any(now - at < GATHER_SECONDS for at in self._notices.values())
        members = {
            node: Seen(
                status=member.status,
                connected=node in status.connected or node == status.me,
                unseen_for=now - self._last_seen[node],
                caught_up_for=now - self._caught_up_since.get(node, now),
            )
            for node, member in state.members.items()
        }
        return View(
            me=status.me,
            voters=frozenset(status.voters),
            members=members,
            stopping=frozenset() if gathering else frozenset(self._notices),
        )

    async def _carry_out(self, change: Change) -> bool:
        """Returns whether something changed; a refused change is tried again at the next tick."""
        try:
            match change:
                case AddVoter(node):
                    await self._log.add_voter(node)
                case RemoveVoter(node):
                    await self._log.remove_voter(node)
                case Transfer(node):
                    await self._log.transfer_leadership(node)
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
