"""`RaftLog`: the replicated log as the rest of the node sees it, from the main event loop.

The Raft core lives in a thread of its own (`log.thread`); here each advance becomes events of the feed, and
outcomes of proposals. A proposal is answered when its id is found in the state that this node has applied.
"""

import asyncio
import logging
import os
import ssl
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TypeVar

from consensus.codec import encode_entry
from consensus.core.base import now
from consensus.core.configuration import VoterChange
from consensus.levels import admit, stamped
from consensus.log.config import Credentials, RaftConfig
from consensus.log.delivery import Delivery
from consensus.log.driver import Driver
from consensus.log.feed import Subscription
from consensus.log.glance import status_of
from consensus.log.thread import LogThread
from consensus.messages import Barrier, Command, Event, Rejected
from consensus.ports import (
    Beacon,
    CommandRejected,
    CommandTooLarge,
    Committed,
    LogStatus,
    MembershipRefused,
    NoQuorum,
    PeerAddress,
)
from consensus.queries import outcome_of, remembered, remembers
from consensus.state import ClusterState, CommandId, NodeId
from consensus.wire.frames import MAX_BEACON, MAX_COMMAND

log = logging.getLogger(__name__)

__all__ = ["RaftConfig", "RaftLog", "stop_process"]

T = TypeVar("T")

MAX_IN_FLIGHT = 10_000
"""Proposals of this node that may wait at once."""
START_SECONDS = 60.0
STOP_SECONDS = 10.0
EXIT_CODE = 70


def stop_process(error: BaseException) -> None:
    """The default for a log that cannot go on: end the process at once, before anybody reads a wrong state."""
    log.critical("process.stopped_by_log error=%r", error)
    logging.shutdown()
    os._exit(EXIT_CODE)


class RaftLog:
    """One node's `consensus.ports.Log`. All methods belong to the loop that ran `start`; `state`, `status`,
    `beacons`, `set_peers` and `set_beacon` may be used from any thread."""

    def __init__(
        self,
        config: RaftConfig,
        server_context: ssl.SSLContext,
        client_context: ssl.SSLContext,
        identify: Callable[[bytes], NodeId],
        initial: ClusterState,
        on_crash: Callable[[BaseException], None] = stop_process,
    ) -> None:
        self._config = config
        credentials = Credentials(server_context, client_context, identify)
        self._delivery = Delivery(initial)
        self._thread = LogThread(config, credentials, initial, self._delivery.turned, on_crash)
        self._peers: Mapping[NodeId, PeerAddress] = {}
        self._beacon = b""
        self._started_at = now()
        self._running = False
        self.port = 0
        """The port that the log listens on, once started."""

    # ------------------------------------------------------------ life
    async def start(self) -> None:
        """Replay the journal, listen, take part.

        Raises:
            Corrupt: the journal or the snapshot is damaged.
            TooNew: the log needs a newer release than this one.
            LibraryMismatch: another pysyncobj is installed.
            OSError: the folder or the port cannot be had.
        """
        async with asyncio.timeout(START_SECONDS):
            self.port = await asyncio.wrap_future(self._thread.start())
        self._started_at = now()
        self._running = True
        self._delivery.begin(asyncio.get_running_loop())
        self.set_peers(self._peers)
        self.set_beacon(self._beacon)

    async def stop(self) -> None:
        """Close the connections and the journal. Proposals that wait get NoQuorum."""
        self._running = False
        self._delivery.end(NoQuorum("the log was stopped"))
        await asyncio.to_thread(self._thread.stop, STOP_SECONDS)

    # ------------------------------------------------------------ reading
    @property
    def state(self) -> ClusterState:
        """The newest applied state: a value, safe to keep."""
        return self._delivery.state

    @property
    def status(self) -> LogStatus:
        """What this node knows of the log, at this moment. Raises RuntimeError before `start`."""
        return status_of(self._delivery.glance, now(), self._started_at)

    def subscribe(self) -> Subscription:
        """First a `Resync` with the present state, then every batch. Bounded: a slow reader gets a `Resync`."""
        return self._delivery.feed.subscribe()

    def recent_events(self, since: int) -> tuple[Event, ...] | None:
        """Events with an index above `since`, from a ring in memory; None when the ring no longer reaches back."""
        return self._delivery.feed.recent_events(since)

    async def wait_applied(self, index: int, timeout: float) -> None:
        """Wait until this node has applied `index`. Raises TimeoutError."""
        await self._delivery.until(lambda glance: glance.applied_index >= index, timeout)

    async def barrier(self, timeout: float = 5.0) -> int:
        """A linearization point: returns an index at which this node has applied all that was committed before
        the call. Raises NoQuorum."""
        return (await self.propose(Barrier(), actor="", timeout=timeout)).index

    # ------------------------------------------------------------ writing
    async def propose(
        self, command: Command, *, actor: str, command_id: CommandId | None = None, timeout: float = 10.0
    ) -> Committed:
        """Commit `command` and wait until it is applied on this node; see `ports.Log.propose`."""
        command_id = command_id or CommandId(uuid.uuid4().hex)
        entry = stamped(command_id, time.time(), actor, command)
        admit(self.state, entry)
        data = encode_entry(entry)
        if len(data) > MAX_COMMAND:
            raise CommandTooLarge(f"the command has {len(data)} bytes, at most {MAX_COMMAND} are possible")
        if not remembers(self.state, command_id):
            self._check_writable()
            await self._apply_here(command_id, data, timeout)
        known = remembered(self.state, command_id)
        outcome = outcome_of(known)
        if isinstance(outcome, Rejected):
            raise CommandRejected(outcome)
        return Committed(known.index, outcome)

    def _check_writable(self) -> None:
        if not self._running:
            raise NoQuorum("the log is not running")
        if reason := self._delivery.glance.read_only:
            raise NoQuorum(f"this node's log is read only: {reason}")
        if self._delivery.awaited >= MAX_IN_FLIGHT:
            raise NoQuorum(f"{MAX_IN_FLIGHT} proposals are waiting already")

    async def _apply_here(self, command_id: CommandId, data: bytes, timeout: float) -> None:
        """Have the command proposed, again and again, until its id is in the state. Raises NoQuorum."""
        self._thread.call(lambda driver: driver.proposals.add(command_id, data))
        try:
            await self._delivery.applied(command_id, timeout)
        except BaseException as error:
            if not self._delivery.is_awaited(command_id):
                self._thread.call(lambda driver: driver.proposals.remove(command_id))
            if isinstance(error, TimeoutError):
                raise NoQuorum(f"not committed within {timeout} s: {self._why_not()}") from None
            raise

    def _why_not(self) -> str:
        status = self.status
        if not status.quorum:
            return f"no majority of the {len(status.voters)} voters for {status.seconds_without_quorum:.1f} s"
        return f"the leader is {status.leader}"

    # ------------------------------------------------------------ membership
    async def add_voter(self, node: NodeId, timeout: float = 5.0) -> None:
        """Leader only: `node`, a learner that is close, gets a vote. Raises MembershipRefused, NoQuorum."""
        await self._change_voters(VoterChange(add=True, node=node), timeout)

    async def remove_voter(self, node: NodeId, timeout: float = 5.0) -> None:
        """Leader only, and not itself. Raises MembershipRefused, NoQuorum."""
        await self._change_voters(VoterChange(add=False, node=node), timeout)

    async def _change_voters(self, change: VoterChange, timeout: float) -> None:
        await self._ask(lambda driver: driver.core.electorate.propose(change), timeout)
        try:
            await self._delivery.until(lambda glance: (change.node in glance.applied_voters) == change.add, timeout)
        except TimeoutError:
            raise NoQuorum(f"the change of {change.node} was not committed within {timeout} s") from None

    async def transfer_leadership(self, to: NodeId | None, timeout: float = 5.0) -> None:
        """Leader only: hand over to `to`, or to the voter that is furthest. Raises MembershipRefused, NoQuorum."""
        await self._ask(lambda driver: driver.core.handover.begin(to, timeout), timeout)
        try:
            await self._delivery.until(lambda glance: not glance.leads and glance.leader is not None, timeout)
        except TimeoutError:
            raise NoQuorum(f"nobody took the leadership over within {timeout} s") from None

    async def _ask(self, function: Callable[[Driver], T], timeout: float) -> T:
        if not self._running:
            raise MembershipRefused("the log is not running")
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.wrap_future(self._thread.ask(function))
        except TimeoutError:
            raise NoQuorum(f"the log was too busy to answer within {timeout} s") from None

    # ------------------------------------------------------------ peers
    def set_peers(self, peers: Mapping[NodeId, PeerAddress]) -> None:
        """The peer table: whom to connect to, whom to accept. Ids not in it are disconnected."""
        self._peers = dict(peers)
        table = self._peers
        if self._running:
            self._thread.call(lambda driver: driver.transport.set_peers(table))

    def disconnect(self, node: NodeId) -> None:
        """Drop the live connection to `node`; one that is still in the peer table may come back."""
        if self._running:
            self._thread.call(lambda driver: driver.transport.disconnect(node))

    def renew_links(self) -> None:
        """Put new connections, with today's certificates, in the place of those that this node has dialled."""
        if self._running:
            self._thread.call(lambda driver: driver.transport.renew())

    def judge_links_again(self) -> None:
        """Drop the live connections whose certificates are not accepted any more."""
        if self._running:
            self._thread.call(lambda driver: driver.transport.judge_again())

    def set_beacon(self, payload: bytes) -> None:
        """At most 64 KiB, sent to every connected peer each second. Raises ValueError."""
        if len(payload) > MAX_BEACON:
            raise ValueError(f"a beacon of {len(payload)} bytes, at most {MAX_BEACON} are possible")
        self._beacon = payload
        if self._running:
            self._thread.call(lambda driver: driver.transport.set_beacon(payload))

    def beacons(self) -> Mapping[NodeId, Beacon]:
        """The last beacon of every peer of the table that has sent one."""
        return self._thread.beacons() if self._running else {}
