"""Rule 2 of formation: single-decree Paxos on which node forms which cluster, among at most N blank nodes. Pure.

After Lamport, "Paxos Made Simple" (2001): every node is an acceptor whose promises are durable, and any may propose.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec


class Ballot(NamedTuple):
    """Ballots are ordered; a node's id makes its own unique."""

    number: int = 0
    node: str = ""


class Founding(msgspec.Struct, frozen=True):
    """The value that is decided: this node forms, with this cluster id and name."""

    node_id: str
    cluster_id: str
    name: str


class Promised(msgspec.Struct, frozen=True):
    """What an acceptor must never forget: durable before it answers."""

    ballot: Ballot = Ballot()
    """It takes nothing of a lower ballot."""
    accepted: Ballot = Ballot()
    value: Founding | None = None
    """What it accepted last, at `accepted`."""


class Ask(msgspec.Struct, frozen=True):
    """A proposer's question. Without a value: promise `ballot`; with one: accept it. `expect` is its N."""

    ballot: Ballot
    expect: int
    value: Founding | None = None


class Vote(msgspec.Struct, frozen=True):
    """The answer: whether it did, and all that it knows."""

    granted: bool
    promised: Promised


def quorum_of(expect: int) -> int:
    """How many of N nodes decide: any two such groups have a node in common."""
    return expect // 2 + 1


def answer(state: Promised, ask: Ask) -> Promised:
    """What the acceptor holds after `ask`; the same `state` if it refuses. Use `vote` for the reply."""
    if ask.ballot < state.ballot:
        return state
    if ask.value is None:
        return Promised(ask.ballot, state.accepted, state.value)
    return Promised(ask.ballot, ask.ballot, ask.value)


def vote(before: Promised, ask: Ask) -> Vote:
    """The reply that goes with `answer`."""
    return Vote(ask.ballot >= before.ballot, answer(before, ask))


def next_ballot(known: Sequence[Promised], me: str) -> Ballot:
    """Above all that is known."""
    return Ballot(max((each.ballot.number for each in known), default=0) + 1, me)


def choose(granted: Sequence[Vote], mine: Founding) -> Founding:
    """The value to propose after a quorum has promised: what was accepted at the highest ballot, for it may have been
    decided; else this node's own."""
    best = max((each.promised for each in granted), key=lambda promised: promised.accepted, default=Promised())
    return best.value or mine
