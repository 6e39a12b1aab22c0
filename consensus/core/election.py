"""Pre-vote: a node raises its term only when a majority would vote for it (Ongaro's thesis, section 9.6).

So a node that was paused or cut off does not depose a healthy leader when it comes back.
"""

import math

from consensus.core.base import LEADER, Node, RaftBase, Send, now
from consensus.wire.frames import HigherTerm, PreVote, PreVoteGranted

LOST_LEADER_DELAY = 0.25
"""Share of an election timeout that is waited when the connection to the leader broke: a killed process is
noticed at once, while the leader's other connections break within the same moment."""


class Election:
    """Decides when the library may stand for election: it does so when its deadline lies in the past."""

    def __init__(self, core: RaftBase, send: Send, min_timeout: float) -> None:
        self._core, self._send, self._min_timeout = core, send, min_timeout
        self._round = 0
        self._granted: set[str] = set()
        self._may_stand = False
        self.leader_seen = -math.inf
        """When this node last heard from a leader of its term."""

    def leader_heard(self) -> None:
        self.leader_seen = now()
        self._round += 1
        self._may_stand = False

    def leader_disconnected(self) -> None:
        """Its process is probably gone: do not wait for the whole timeout, nor hold others back."""
        core = self._core
        self.leader_seen = -math.inf
        hurried = now() + LOST_LEADER_DELAY * core.election_timeout()
        core.election_deadline = min(core.election_deadline, hurried)

    def before_tick(self) -> None:
        """Ask for pre-votes when the deadline has passed; without a majority of them the library must not stand."""
        core = self._core
        if core.role == LEADER or core.handing_over or self._may_stand or core.election_deadline >= now():
            return
        core.election_deadline = now() + core.election_timeout()
        if core.voter:
            self._ask()

    def after_tick(self) -> None:
        self._may_stand = False

    def _ask(self) -> None:
        core = self._core
        self._round += 1
        self._granted = {core.me}
        question = PreVote(self._round, core.term + 1, core.last_index, core.last_term)
        for node in sorted(core.others & core.connected, key=lambda node: str(node.id)):
            self._send(node, question)
        self._count()

    def _count(self) -> None:
        core = self._core
        if core.voter and 2 * len(self._granted) > len(core.others) + 1:
            self._may_stand = True
            core.election_deadline = 0.0

    def on_granted(self, node: Node, answer: PreVoteGranted) -> None:
        if answer.round == self._round and node in self._core.others and self._core.role != LEADER:
            self._granted.add(node.id)
            self._count()

    def on_question(self, node: Node, question: PreVote) -> None:
        """Say yes when a real vote would be given and no leader is alive. Learners answer too: one that does not
        know yet that it was made a voter may be needed for the majority."""
        core = self._core
        if question.term <= core.term:
            self._send(node, HigherTerm(core.term))
        elif core.role == LEADER or now() - self.leader_seen < self._min_timeout:
            return
        elif (question.last_term, question.last_index) >= (core.last_term, core.last_index):
            self._send(node, PreVoteGranted(question.round))
