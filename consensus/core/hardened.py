"""PySyncObj made safe: the library's elections, commit rule and apply loop, with its holes closed.

Closed here and in the parts it is made of: log matching (`matching`), replication with answers that carry their
term (`sending`), pre-vote (`election`), one change of voters at a time (`configuration`), snapshots by Raft's
rules (`compaction`), hand-over of leadership, and a disk that refuses writes. No network, thread or timer here.
"""

import logging
import math
import random
from collections.abc import Callable
from typing import Any

from consensus.core.base import REGULAR, Network, Node, RaftBase, Timers, now
from consensus.core.compaction import CompactionRule, Compactor, StateMachine
from consensus.core.configuration import Electorate, is_change
from consensus.core.election import Election
from consensus.core.handover import Handover
from consensus.core.journal import Journal
from consensus.core.matching import Matcher
from consensus.core.sending import LogSender
from consensus.core.snapshot import Background, SnapshotStore
from consensus.wire.frames import (
    AppendEntries,
    AppendReply,
    HigherTerm,
    Message,
    PreVote,
    PreVoteGranted,
    Propose,
    RequestVote,
    SnapshotChunk,
    SnapshotReply,
    TimeoutNow,
    VoteGranted,
)

log = logging.getLogger(__name__)


class HardenedRaft(RaftBase):
    """One node's Raft core. Call `receive`, `connected_to`, `disconnected_from` and `tick`, then sync the journal,
    then let the network's messages go. `genesis` is the one node of the initial configuration."""

    def __init__(
        self,
        me: str,
        genesis: str,
        *,
        journal: Journal,
        store: SnapshotStore,
        machine: StateMachine,
        network: Network,
        background: Background,
        timers: Timers,
        rule: CompactionRule,
        rng: random.Random,
    ) -> None:
        self._network, self._machine = network, machine
        self.read_only = ""
        """Why this node neither leads nor votes nor confirms: its disk refused a write."""
        self._granted: tuple[int, set[Node]] = (0, set())
        self._commit_at_heartbeats = (0, 0)
        self.answered_at: dict[Node, float] = {}
        """When each peer last answered this leadership, on the library's clock. Unlike `heard_at`, where a leadership
        begins with the benefit of the doubt, it holds nothing but evidence."""
        self.last_quorum_at = -math.inf
        """The latest `quorum_at` of any tick: what is known at the moment ends with a connection or a leadership."""
        self.electorate = Electorate(self)
        self.handover = Handover(self)
        self.election = Election(self, self._send_to, timers.election_min)
        self._compactor = Compactor(journal, store, machine, rule, background)
        self._sender = LogSender(self, store, self._compactor, self._send_to, self._backlog)
        self._matcher = Matcher(self, store, self._compactor, machine, self.electorate, self._send_to)
        super().__init__(me, journal, timers, self._send_to, rng)
        self._handlers: dict[type, Callable[[Node, Any], None]] = {
            AppendEntries: self._on_append,
            AppendReply: self._on_append_reply,
            SnapshotChunk: self._on_snapshot_chunk,
            SnapshotReply: self._on_snapshot_reply,
            PreVote: self.election.on_question,
            PreVoteGranted: self.election.on_granted,
            HigherTerm: self._on_higher_term,
            RequestVote: self._on_request_vote,
            VoteGranted: self._on_vote_granted,
            TimeoutNow: self._on_timeout_now,
            Propose: self._on_propose,
        }
        self.electorate.applied = (genesis,)
        self._matcher.load()
        self.electorate.recompute()
        if self.voter and not self.others:
            self.election_deadline = 0.0  # nobody to wait for

    def _send_to(self, node: Node, message: Message) -> bool:
        return self._network.send(node.id, message)

    def _backlog(self, node: Node) -> int:
        return self._network.backlog(node.id)

    # ------------------------------------------------------------ what happens to it
    def connected_to(self, peer: str) -> None:
        """A connection came up. A peer that is no voter gets the log as a learner."""
        node = Node(peer)
        self.connected.add(node)
        self.electorate.classify()

    def disconnected_from(self, peer: str) -> None:
        node = Node(peer)
        self.connected.discard(node)
        self.answered_at.pop(node, None)
        self._sender.forget(node)
        self.electorate.classify()
        if node == self.leader:
            self.election.leader_disconnected()

    def receive(self, peer: str, message: Message) -> None:
        """Handle one message of a connected peer."""
        node = Node(peer)
        if not self.read_only:
            self._handlers[type(message)](node, message)
        elif isinstance(message, AppendEntries | SnapshotChunk) and message.term >= self.term:
            # Follows by name only: it confirms nothing, and keeps nothing that it could not write.
            self.election.leader_heard()
            self.leader = node

    def tick(self) -> None:
        """Elections, commit, apply, heartbeats, commands and compaction."""
        self.last_quorum_at = max(self.last_quorum_at, self.quorum_at)
        if self.read_only:
            self.begin_election_timeout()
            return
        self.election.before_tick()
        self.engine_ticks()
        self.election.after_tick()
        self.handover.tick()

    def send_new(self) -> None:
        """Send what the last tick appended or committed, without waiting for the heartbeat."""
        if self.is_leader:
            self._sender.send_new()

    @property
    def next_deadline(self) -> float:
        """When `tick` must be called next, on the library's clock."""
        if self.handover.active:
            return now() + 0.01
        if self.is_leader:
            return min(self.heartbeat_deadline, self._sender.next_round)
        return self.election_deadline

    @property
    def commits_alone(self) -> bool:
        """Entries that this node may commit without hearing from anybody, at its next tick."""
        return self.is_leader and not self.others and self.commit_index < self.last_index

    @property
    def quorum_at(self) -> float:
        """When this node last knew of a majority: as a leader from answers, else from its leader."""
        if not self.is_leader:
            return self.election.leader_seen
        heard = sorted((self.heard_at.get(node, 0.0) for node in self.others), reverse=True)
        needed = (len(self.others) + 1) // 2
        return heard[needed - 1] if needed else now()

    @property
    def lag(self) -> dict[str, int]:
        """Of each peer of this leader: entries it has not confirmed of those committed one to two heartbeats ago. What
        is on its way is no lag: under a steady load a learner would else never count as caught up."""
        settled = self._commit_at_heartbeats[0]
        return {str(node.id): max(0, settled - match) for node, match in self.match_index.items()}

    # ------------------------------------------------------------ commands
    def submit(self, command: bytes) -> None:
        """Append (leader) or forward (others) one command. It may get lost: repeat it until it is applied."""
        self._applyCommand(command, None, 0)

    def _on_propose(self, node: Node, message: Propose) -> None:
        # Never forwarded again: two nodes that take each other for the leader would play ping-pong with it.
        if self.is_leader and message.command[:1] == REGULAR:
            self._applyCommand(message.command, None)

    # ------------------------------------------------------------ follower
    def _follow(self, node: Node, term: int) -> bool:
        """Accept `node` as the leader of `term`, unless that is an old one."""
        if term < self.term:
            self._send_to(node, HigherTerm(self.term))
            return False
        self.election.leader_heard()
        # Without a log position the library only keeps the books: term, role, leader, election deadline.
        self.engine_receives(node, {"type": "append_entries", "term": term, "commit_index": self.commit_index})
        return True

    def _on_append(self, node: Node, message: AppendEntries) -> None:
        if self._follow(node, message.term):
            self._matcher.append(node, message)

    def _on_snapshot_chunk(self, node: Node, message: SnapshotChunk) -> None:
        if self._follow(node, message.term):
            self._matcher.receive(node, message)

    # ------------------------------------------------------------ leader
    def _on_append_reply(self, node: Node, message: AppendReply) -> None:
        if message.term == self.term and self.is_leader and node in self.match_index:
            self.heard_at[node] = self.answered_at[node] = now()
            self._sender.on_reply(node, message)

    def _on_snapshot_reply(self, node: Node, message: SnapshotReply) -> None:
        if message.term == self.term and self.is_leader and node in self.match_index:
            self.heard_at[node] = self.answered_at[node] = now()
            self._sender.on_snapshot_reply(node, message)

    # ------------------------------------------------------------ elections
    def _on_higher_term(self, node: Node, message: HigherTerm) -> None:
        if message.term > self.term:
            self.adopt_term(message.term)

    def _on_request_vote(self, node: Node, message: RequestVote) -> None:
        if message.term < self.term:
            self._send_to(node, HigherTerm(self.term))
            return
        request = {"type": "request_vote", "term": message.term}
        request |= {"last_log_index": message.last_index, "last_log_term": message.last_term}
        self.engine_receives(node, request)

    def _on_vote_granted(self, node: Node, message: VoteGranted) -> None:
        if message.term != self.term:
            return  # else a late vote of an older term between two copies of one would have it counted twice
        if self._granted[0] != message.term:
            self._granted = (message.term, set())
        if node in self.others and node not in self._granted[1]:
            self._granted[1].add(node)
            self.engine_receives(node, {"type": "response_vote", "term": message.term})

    def _on_timeout_now(self, node: Node, message: TimeoutNow) -> None:
        if self.voter:
            self.engine_receives(node, {"type": "timeout_now", "term": message.term})

    # ------------------------------------------------------------ a disk that refuses writes
    def refuse_writes(self, reason: str) -> None:
        """The journal could not be synced: give leadership to whoever is furthest and keep silent. The caller has
        dropped every message that was about to leave."""
        self.read_only = reason
        heir = self.handover.best() if self.is_leader else None
        self.become_follower()
        if heir is not None:
            self._send_to(heir, TimeoutNow(self.term))

    def accept_writes(self) -> None:
        """The journal could be synced again."""
        self.read_only = ""
        self.begin_election_timeout()

    # ------------------------------------------------------------ the library calls these by their private names
    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        if command[:1] == REGULAR:
            self._machine.apply(self.applied_index + 1, command[1:])
        elif is_change(command):
            self.electorate.apply(command)

    def _SyncObj__applyLogEntries(self) -> bool:
        # The library counts a leader's own copy as soon as it is in memory. Whoever needs no other voter would apply,
        # and show to readers, what a loss of power takes back: found by the simulator, with votes that had just gone.
        if self.is_leader and self.commit_index > self.log.durable_index:
            self.set_commit(max(self.applied_index, self.log.durable_index))
        return bool(super()._SyncObj__applyLogEntries())

    def _SyncObj__onBecomeLeader(self) -> None:
        self._sender.reset()
        self.answered_at.clear()
        self._commit_at_heartbeats = (self.commit_index, self.commit_index)
        super()._SyncObj__onBecomeLeader()

    def _SyncObj__sendAppendEntries(self) -> None:
        self._commit_at_heartbeats = (self._commit_at_heartbeats[1], self.commit_index)
        self.begin_heartbeat_period()
        self._sender.heartbeat()

    def _SyncObj__tryLogCompaction(self) -> None:
        term = self.log[self.applied_index - self.log[0][1]][2]
        self._compactor.turn(now(), self.applied_index, term, self.electorate.applied)

    def _checkCommandsToApply(self) -> None:
        if not (self.is_leader and self.handover.active):
            super()._checkCommandsToApply()
