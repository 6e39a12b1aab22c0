"""The state machine: `apply` takes a state and an entry of the log and gives the next state, what to tell and the
outcome. Pure, so that all replicas agree, and total, because an exception here would stop a node for good."""

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any, Final

import msgspec
from immutables import Map
from msgspec.structs import replace

from consensus import messages as m
from consensus.levels import needed, why_not
from consensus.messages import Accepted, Command, Entry, Event, Outcome, Rejected
from consensus.queries import outcome_of, remember, remembered, remembers
from consensus.rules import access, blobs, datasets, effects, epochs, jobs, members, models, rotation
from consensus.rules.checks import Change, Refused, Stamp, cut
from consensus.state import AuditEntry, ClusterState

AUDIT_ENTRIES: Final = 1000
RECENT_COMMANDS: Final = 20_000
"""So many are surely remembered; at most twice as many are."""
_MAX_ID = 128
_MAX_AUDIT_TEXT = 200

Rule = Callable[[ClusterState, Any, Stamp], Change]


class Applied(msgspec.Struct, frozen=True):
    """`outcome` of an entry whose command id was seen before is the remembered one, without events."""

    state: ClusterState
    events: tuple[Event, ...]
    outcome: Outcome


def _barrier(state: ClusterState, command: m.Barrier, stamp: Stamp) -> Change:
    return Change(state)


_RULES: Final = MappingProxyType[type, Rule](
    {
        m.NameCluster: members.name_cluster,
        m.Dissolve: members.dissolve,
        m.JoinMember: members.join_member,
        m.SetMemberStatus: members.set_member_status,
        m.RemoveMember: members.remove_member,
        m.RaiseLevel: members.raise_level,
        m.BeginEpoch: epochs.begin_epoch,
        m.AnnounceHead: epochs.announce_head,
        m.HoldBlobs: blobs.hold_blobs,
        m.DropBlobs: blobs.drop_blobs,
        m.AddDatasetVersion: datasets.add_dataset_version,
        m.DeleteDataset: datasets.delete_dataset,
        m.SubmitJob: jobs.submit_job,
        m.AddCandidates: effects.add_candidates,
        m.StartFolds: effects.start_folds,
        m.RecordFolds: effects.record_folds,
        m.RecordFinal: effects.record_final,
        m.PublishVersion: models.publish_version,
        m.FinishUnit: effects.finish_unit,
        m.CancelJob: jobs.cancel_job,
        m.RetryJob: jobs.retry_job,
        m.SealJob: jobs.seal_job,
        m.DeleteJob: jobs.delete_job,
        m.MoveAlias: models.move_alias,
        m.DropAlias: models.drop_alias,
        m.RollBackAlias: models.roll_back_alias,
        m.CreateToken: access.create_token,
        m.RevokeToken: access.revoke_token,
        m.BeginRotation: rotation.begin_rotation,
        m.ConfirmRotation: rotation.confirm_rotation,
        m.ExcuseNode: rotation.excuse_node,
        m.AbandonRotation: rotation.abandon_rotation,
        m.Barrier: _barrier,
    }
)

# Which object a command is about. Bookkeeping of the nodes themselves (Barrier, HoldBlobs, StartFolds and the
# like) is left out: it would flush what users did out of the ring within a minute of training.
_AUDITED: Final = MappingProxyType[type, Callable[[Any], str]](
    {
        m.NameCluster: lambda command: command.name,
        m.Dissolve: lambda command: command.into,
        m.JoinMember: lambda command: command.member.id,
        m.SetMemberStatus: lambda command: command.node,
        m.RemoveMember: lambda command: command.node,
        m.RaiseLevel: lambda command: str(command.level),
        m.BeginEpoch: lambda command: str(command.number),
        m.AddDatasetVersion: lambda command: command.name,
        m.DeleteDataset: lambda command: command.name,
        m.SubmitJob: lambda command: command.job,
        m.PublishVersion: lambda command: command.model,
        m.CancelJob: lambda command: command.job,
        m.RetryJob: lambda command: command.job,
        m.DeleteJob: lambda command: command.job,
        m.MoveAlias: lambda command: f"{command.model}@{command.alias}",
        m.DropAlias: lambda command: f"{command.model}@{command.alias}",
        m.RollBackAlias: lambda command: f"{command.model}@{command.alias}",
        m.CreateToken: lambda command: command.token,
        m.RevokeToken: lambda command: command.token,
        m.BeginRotation: lambda command: str(command.generation),
        m.ExcuseNode: lambda command: command.node,
        m.AbandonRotation: lambda command: "secret",
    }
)


def apply(state: ClusterState, index: int, entry: Entry) -> Applied:
    """Apply the entry at `index` of the log. Never raises, except for a lack of memory: that is this node's
    trouble alone, so it must not become an outcome on which the replicas would differ."""
    if remembers(state, entry.id):
        return Applied(_at(state, index), (), outcome_of(remembered(state, entry.id)))
    if index <= state.index:
        return Applied(state, (), Rejected("conflict", f"index {index} was applied before: {state.index} is reached"))
    change, outcome = _decide(state, index, entry)
    return Applied(_recorded(change.state, index, entry, outcome), change.events, outcome)


def _decide(state: ClusterState, index: int, entry: Entry) -> tuple[Change, Outcome]:
    try:
        _check_entry(state, entry)
        change = _RULES[type(entry.command)](state, entry.command, Stamp(index, entry.time, entry.actor))
    except Refused as refused:
        return Change(state), Rejected(refused.code, cut(refused.reason))
    except MemoryError:
        raise
    except Exception as error:
        # The last fence. Only the class goes into the state: a message could differ between versions of Python.
        return Change(state), Rejected("invalid", f"the command could not be applied: {type(error).__name__}")
    return change, Accepted(change.value)


def _check_entry(state: ClusterState, entry: Entry) -> None:
    if entry.level > state.level:
        raise Refused("conflict", why_not(entry, state.level))
    if needed(entry.command) > entry.level:
        raise Refused("invalid", f"the command needs level {needed(entry.command)}, its entry says {entry.level}")
    if state.dissolved and not isinstance(entry.command, m.Barrier | m.Dissolve):
        raise Refused("dissolved", f"this node is about to join cluster {state.dissolved}: ask again in a few seconds")
    if not 1 <= len(entry.id) <= _MAX_ID:
        raise Refused("invalid", f"a command id has 1 to {_MAX_ID} characters, this one {len(entry.id)}")
    if len(entry.actor) > _MAX_AUDIT_TEXT:
        raise Refused("invalid", f"the actor has more than {_MAX_AUDIT_TEXT} characters")
    if not math.isfinite(entry.time):
        raise Refused("invalid", f"the time is {entry.time}")


def _at(state: ClusterState, index: int) -> ClusterState:
    return replace(state, index=index) if index > state.index else state


def _recorded(state: ClusterState, index: int, entry: Entry, outcome: Outcome) -> ClusterState:
    """`state` at `index`, with the outcome among the recent commands and, where it counts, in the audit."""
    recent, before = state.recent, state.recent_before
    if len(recent) >= RECENT_COMMANDS:
        recent, before = Map(), recent
    audit, audit_next = state.audit, state.audit_next
    # What is above the level in force is refused unseen: not every release can tell what it is about.
    audited = _audited(index, entry, outcome) if entry.level <= state.level else None
    if audited is not None:
        if audit_next - AUDIT_ENTRIES in audit:
            audit = audit.delete(audit_next - AUDIT_ENTRIES)
        audit, audit_next = audit.set(audit_next, audited), audit_next + 1
    return replace(
        state,
        index=index,
        recent=recent.set(entry.id, remember(index, outcome)),
        recent_before=before,
        audit=audit,
        audit_next=audit_next,
    )


def _audited(index: int, entry: Entry, outcome: Outcome) -> AuditEntry | None:
    subject = _AUDITED.get(type(entry.command))
    if subject is None:
        return None
    return AuditEntry(
        index=index,
        at=entry.time if math.isfinite(entry.time) else 0.0,
        actor=entry.actor[:_MAX_AUDIT_TEXT],
        command=type(entry.command).__name__,
        object=str(subject(entry.command))[:_MAX_AUDIT_TEXT],
        outcome=outcome.code if isinstance(outcome, Rejected) else "ok",
    )


def commands() -> frozenset[type[Command]]:
    """The commands that have a rule (all of them: a test compares it with the union)."""
    return frozenset(_RULES)
