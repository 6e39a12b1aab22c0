"""The replicated log in memory: N linked logs with kill, revive, partition, heal and elect. The unit-test twin of
`consensus.log.raft`: same rules, same codec, same feed, but one shared list of committed entries and no disk."""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Final

from consensus.codec import CodecError, decode_entry, encode_entry
from consensus.levels import admit, stamped
from consensus.log.feed import Feed, Subscription
from consensus.messages import Barrier, Command, Entry, Event, Rejected
from consensus.ports import (
    Batch,
    Beacon,
    CommandRejected,
    CommandTooLarge,
    Committed,
    LogStatus,
    MembershipRefused,
    NoQuorum,
    PeerAddress,
)
from consensus.queries import outcome_of, remembered
from consensus.rules.machine import apply
from consensus.state import ClusterState, CommandId, NodeId

MAX_COMMAND_BYTES: Final = 1024 * 1024
_MAX_BEACON_BYTES: Final = 64 * 1024


class MemoryNetwork:
    """The wires and the truth: who lives, who reaches whom, who leads, and what is committed.

    Entries are committed by the leader's side of the network when it has a majority of the voters; every log that
    the leader reaches applies them at once, the others when they reach it again. Lives in one event loop."""

    def __init__(
        self,
        voters: Iterable[NodeId],
        learners: Iterable[NodeId] = (),
        *,
        initial: ClusterState | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` dates the entries, `monotonic` tells how long ago a quorum was lost and a beacon set."""
        self.voters = list(voters)
        self.committed: list[tuple[int, Entry]] = []
        self.leader: NodeId | None = None
        self.term = 0
        self.clock, self.monotonic = clock, monotonic
        self.initial = initial or ClusterState()
        nodes = (*self.voters, *learners)
        self._down: set[NodeId] = set()
        self._late: set[NodeId] = set()
        self._side = dict.fromkeys(nodes, 0)
        self._changed = asyncio.Event()
        self.logs: Mapping[NodeId, MemoryLog] = MappingProxyType({node: MemoryLog(node, self) for node in nodes})
        self._settle()

    # ---- what a test does to it
    def kill(self, node: NodeId) -> None:
        self._down.add(node)
        self._settle()

    def revive(self, node: NodeId) -> None:
        self._down.discard(node)
        self._settle()

    def partition(self, *sides: Iterable[NodeId]) -> None:
        """Nodes reach one another only within a side; those not named form one more."""
        self._side = dict.fromkeys(self.logs, 0)
        for number, side in enumerate(sides, 1):
            self._side.update(dict.fromkeys(side, number))
        self._settle()

    def heal(self) -> None:
        self.partition()

    def lag(self, node: NodeId, lags: bool = True) -> None:
        """What others commit comes to this node only with its own next entry, as where messages are slow."""
        (self._late.add if lags else self._late.discard)(node)
        self._settle()

    def elect(self, node: NodeId) -> None:
        """Make `node` the leader. Raises MembershipRefused when it could not be elected."""
        if node not in self.voters or not self.has_quorum(node):
            raise MembershipRefused(f"{node} is no voter with a majority")
        self._settle(prefer=node)

    # ---- what the logs ask
    def alive(self, node: NodeId) -> bool:
        return node not in self._down

    def reaches(self, one: NodeId, other: NodeId) -> bool:
        return self.alive(one) and self.alive(other) and self._side[one] == self._side[other]

    def has_quorum(self, node: NodeId) -> bool:
        return 2 * sum(self.reaches(node, voter) for voter in self.voters) > len(self.voters)

    def commit(self, entry: Entry) -> None:
        index = self.committed[-1][0] if self.committed else self.initial.index
        self.committed.append((index + 1, entry))
        self._settle()

    def set_voter(self, node: NodeId, voter: bool) -> None:
        if node not in self.logs or (node in self.voters) is voter or (not voter and len(self.voters) == 1):
            raise MembershipRefused(f"{node} cannot {'become' if voter else 'cease to be'} a voter")
        if voter:
            self.voters.append(node)
        else:
            self.voters.remove(node)
        self._settle()

    async def changed(self) -> None:
        await self._changed.wait()

    def _settle(self, prefer: NodeId | None = None) -> None:
        """After any change: a leader where there is a majority, everyone it reaches up to date, waiters woken."""
        able = [node for node in self.voters if self.has_quorum(node)]
        if prefer is None and self.leader in able:
            prefer = self.leader
        leader = prefer or (able[0] if able else None)
        if leader is not None and leader != self.leader:
            self.term += 1
        self.leader = leader
        for node, log in self.logs.items():
            log.note_quorum(self.has_quorum(node))
            if leader is not None and self.reaches(node, leader) and node not in self._late:
                log.catch_up()
        self._changed.set()
        self._changed = asyncio.Event()


class MemoryLog:
    """One node's view of a `MemoryNetwork`; implements `consensus.ports.Log`."""

    def __init__(self, me: NodeId, network: MemoryNetwork) -> None:
        self.me = me
        self._network = network
        self._state = network.initial
        self._applied = 0
        self._feed = Feed(self._state)
        self._beacon = b""
        self._beacon_at = 0.0
        self._lost_quorum_at: float | None = None
        self.peers: Mapping[NodeId, PeerAddress] = {}

    @property
    def state(self) -> ClusterState:
        return self._state

    @property
    def status(self) -> LogStatus:
        network = self._network
        quorum = network.has_quorum(self.me)
        last = network.committed[-1][0] if network.committed else network.initial.index
        leading = quorum and network.leader == self.me
        return LogStatus(
            me=self.me,
            leader=network.leader if quorum else None,
            term=network.term,
            commit_index=last if quorum else self._state.index,
            applied_index=self._state.index,
            quorum=quorum,
            seconds_without_quorum=0.0
            if self._lost_quorum_at is None
            else self._network.monotonic() - self._lost_quorum_at,
            voters=tuple(network.voters),
            connected=tuple(sorted(self._reached())),
            lag={node: last - network.logs[node].state.index for node in network.logs} if leading else {},
            read_only="",
        )

    async def propose(
        self, command: Command, *, actor: str, command_id: CommandId | None = None, timeout: float = 10.0
    ) -> Committed:
        identity = command_id or CommandId(secrets.token_hex(16))
        try:
            entry = stamped(identity, self._network.clock(), actor, command)
            admit(self._state, entry)
            data = encode_entry(entry)
        except CodecError as error:
            raise CommandRejected(Rejected("invalid", str(error))) from error
        if len(data) > MAX_COMMAND_BYTES:
            raise CommandTooLarge(f"the command has {len(data)} bytes, the most is {MAX_COMMAND_BYTES}")
        await self._until(lambda: self._network.has_quorum(self.me), timeout)
        # Through the bytes, as the real log does: what the codec cannot carry fails here too.
        self._network.commit(decode_entry(data))
        self.catch_up()
        known = remembered(self._state, identity)
        outcome = outcome_of(known)
        if isinstance(outcome, Rejected):
            raise CommandRejected(outcome)
        return Committed(known.index, outcome)

    async def barrier(self, timeout: float = 5.0) -> int:
        return (await self.propose(Barrier(), actor=self.me, timeout=timeout)).index

    async def wait_applied(self, index: int, timeout: float) -> None:
        try:
            await self._until(lambda: self._state.index >= index, timeout)
        except NoQuorum:
            raise TimeoutError(f"index {index} was not applied in {timeout} s: {self._state.index} is") from None

    def subscribe(self) -> Subscription:
        return self._feed.subscribe()

    def recent_events(self, since: int) -> tuple[Event, ...] | None:
        return self._feed.recent_events(since)

    async def add_voter(self, node: NodeId, timeout: float = 5.0) -> None:
        self._must_lead()
        self._network.set_voter(node, True)

    async def remove_voter(self, node: NodeId, timeout: float = 5.0) -> None:
        self._must_lead()
        self._network.set_voter(node, False)

    async def transfer_leadership(self, to: NodeId | None, timeout: float = 5.0) -> None:
        self._must_lead()
        others = [node for node in self._network.voters if node != self.me and self._network.has_quorum(node)]
        if to is None and not others:
            raise MembershipRefused("there is no other voter to hand the leadership to")
        self._network.elect(others[0] if to is None else to)

    def set_peers(self, peers: Mapping[NodeId, PeerAddress]) -> None:
        self.peers = dict(peers)

    def set_beacon(self, payload: bytes) -> None:
        if len(payload) > _MAX_BEACON_BYTES:
            raise ValueError(f"a beacon has at most {_MAX_BEACON_BYTES} bytes, not {len(payload)}")
        self._beacon, self._beacon_at = payload, self._network.monotonic()

    def beacons(self) -> Mapping[NodeId, Beacon]:
        logs = (self._network.logs[node] for node in self._reached())
        return {
            log.me: Beacon(log._beacon, self._network.monotonic() - log._beacon_at) for log in logs if log._beacon_at
        }

    async def start(self) -> None:
        self._network.revive(self.me)

    async def stop(self) -> None:
        self._network.kill(self.me)
        self._feed.close()
        self._feed = Feed(self._state)

    def note_quorum(self, quorum: bool) -> None:
        if quorum:
            self._lost_quorum_at = None
        elif self._lost_quorum_at is None:
            self._lost_quorum_at = self._network.monotonic()

    def catch_up(self) -> None:
        """Apply what is committed and not yet applied here; called by the network."""
        events: list[Event] = []
        entries = tuple(self._network.committed[self._applied :])
        for index, entry in entries:
            applied = apply(self._state, index, entry)
            self._state = applied.state
            events.extend(applied.events)
        self._applied += len(entries)
        if entries:
            self._feed.publish(Batch(entries, tuple(events), self._state))

    def _reached(self) -> list[NodeId]:
        return [node for node in self._network.logs if node != self.me and self._network.reaches(self.me, node)]

    def _must_lead(self) -> None:
        if self._network.leader != self.me:
            raise MembershipRefused(f"{self.me} is not the leader")

    async def _until(self, true: Callable[[], bool], timeout: float) -> None:
        """Raises NoQuorum after `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not true():
                    await self._network.changed()
        if not true():
            raise NoQuorum(f"no majority of the voters was reached in {timeout} s")
