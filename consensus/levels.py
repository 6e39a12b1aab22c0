"""Releases side by side: what level of the code a command needs, and which level a cluster may use.

A release understands every level up to its own, and says so in its member's entry. The level in force is part of the
replicated state, starts at 1, only rises, and only to what every member understands.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from consensus.messages import (
    TALLIED_FROM,
    AddCandidates,
    Command,
    DeleteJob,
    Entry,
    RecordFolds,
    Rejected,
    SealJob,
    SubmitJob,
)
from consensus.ports import CommandRejected, LogError
from consensus.state import ClusterState, CommandId

LEVEL: Final = 2
"""What this release understands. It goes up by one with each release that has a command, or a new meaning of one, that
the release before would not apply alike; fields with a default that change no outcome need no new level."""
NEEDED: Mapping[type, int] = MappingProxyType(dict.fromkeys((AddCandidates, SealJob, DeleteJob), TALLIED_FROM))
"""The level that a command needs whatever it says, where that is more than 1."""


class TooNew(LogError):
    """The log has reached a level that this release does not understand: the node must not go on."""

    def __init__(self, own: int, level: int) -> None:
        super().__init__(
            f"this release understands level {own}, the log needs level {level}: upgrade this node to the release of "
            "the others"
        )


def check(own: int, level: int) -> None:
    """Raises TooNew."""
    if level > own:
        raise TooNew(own, level)


def needed(command: Command) -> int:
    """The level that a command needs: some have had a new meaning since."""
    match command:
        case SubmitJob(candidates=()):
            return TALLIED_FROM
        case RecordFolds(tallies=tallies, segment=segment, replaces=replaces) if tallies or segment or replaces:
            return TALLIED_FROM
        case _:
            return NEEDED.get(type(command), 1)


def stamped(command_id: CommandId, time: float, actor: str, command: Command) -> Entry:
    """The entry of a command, with the level that it needs."""
    return Entry(command_id, time, actor, command, needed(command))


def admit(state: ClusterState, entry: Entry) -> None:
    """Whether an entry may be proposed: asked before it gets near the log. The level in force never falls, so what is
    admitted here is understood wherever it is applied. Raises CommandRejected."""
    if entry.level > state.level:
        raise CommandRejected(Rejected("conflict", why_not(entry, state.level)))


def why_not(entry: Entry, level: int) -> str:
    """One text on all releases, also on those that do not know the command."""
    return f"the command needs level {entry.level}, level {level} is in force until every member runs a newer release"


def common_level(state: ClusterState) -> int:
    """The highest level that all members understand, and at least the one in force."""
    return max(state.level, min((member.level for member in state.members.values()), default=state.level))
